"""The types of a service's `strategy` and `strategy_parameters`, with their JSON schemas.

Lives here: ``StrategyName`` (replaces an alias by its name), ``StrategyParameters`` and ``POLICY``.
Rules: names, aliases and parameters are those of the classes in ``core.strategies``; none is listed
here. ``check_strategy`` finds contradictions.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from paraglider.config.wording import shown, ticked
from paraglider.core.strategies import ALIASES, KINDS, Parameter, Strategy, canonical

#: a policy, a class of the operator's own, as `strategy` names it
POLICY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _name_schema() -> dict[str, Any]:
    names = [{"const": name, "description": _about(each)} for name, each in KINDS.items()]
    names += [{"const": alias, "description": f"As {name}."} for alias, name in ALIASES.items()]
    policy = {
        "type": "string",
        "pattern": f"^{POLICY.pattern}$",
        "description": "A policy: a class of your own, package.module:Class.",
    }
    return {"anyOf": [*names, policy]}


def _about(strategy: type[Strategy]) -> str:
    return f"Picks {strategy.summary}{strategy.turns()}."


def _parameters_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            parameter.name: parameter_schema(name, parameter)
            for name, each in KINDS.items()
            for parameter in each.parameters
        },
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    }


def parameter_schema(owner: str, parameter: Parameter) -> dict[str, Any]:
    """The JSON schema of a parameter of the strategy or probe ``owner``."""
    text = isinstance(parameter.default, str)
    bounds = ("minLength", "maxLength") if text else ("minimum", "maximum")
    return {
        "type": "string" if text else "integer",
        bounds[0]: parameter.minimum,
        bounds[1]: parameter.maximum,
        "default": parameter.default,
        "description": f"{owner}: {parameter.help}",
    }


def _canonical(value: Any) -> Any:
    return canonical(value) if isinstance(value, str) else value


def scalars(value: Any) -> Any:
    """``value``, a section of numbers, texts and truth values; raises ValueError for another."""
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} where a section belongs; write keys and values")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str | int | float | bool):
            raise ValueError(
                f"{ticked(key)} has {shown(item)}; give each parameter one number, text or truth"
                " value"
            )
    return value


StrategyName = Annotated[str, BeforeValidator(_canonical), WithJsonSchema(_name_schema())]
StrategyParameters = Annotated[
    dict[str, Any], BeforeValidator(scalars), WithJsonSchema(_parameters_schema())
]
