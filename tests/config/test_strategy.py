"""Tests of ``paraglider.config.strategy``: the types of `strategy` and `strategy_parameters`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from paraglider.config.model import Service
from paraglider.config.strategy import (
    POLICY,
    StrategyName,
    StrategyParameters,
    parameter_schema,
    scalars,
)
from paraglider.core.parameter import Parameter
from paraglider.core.strategies import ALIASES, KINDS

NAME = TypeAdapter(StrategyName)
PARAMETERS = TypeAdapter(StrategyParameters)


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_an_alias_becomes_the_name(alias: str, name: str) -> None:
    """Everything that reads the configuration has the strategy's own name."""
    assert NAME.validate_python(alias) == name
    assert NAME.validate_python(name) == name
    one = {"name": "a", "vip": "192.0.2.1", "protocol": "tcp", "backends": ["10.0.0.1"]}
    service = Service.model_validate({**one, "strategy": alias})
    assert (service.strategy, service.strategy_class) == (name, KINDS[name])


def test_what_is_no_name_is_left_to_the_check() -> None:
    """``check`` suggests the nearest name; only another type is refused here."""
    assert NAME.validate_python("a.b:C") == "a.b:C"
    assert NAME.validate_python("leastcon") == "leastcon"
    with pytest.raises(ValidationError):
        NAME.validate_python(["rr"])


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("a:B", True),
        ("a.b_c.d1:_E", True),
        ("a", False),
        (":B", False),
        ("a:", False),
        ("a.:B", False),
        ("1a:B", False),
        ("a:B:C", False),
        ("a:B.c", False),
        ("ä:B", False),
        ("a:B\n", False),
    ],
)
def test_a_policy_is_a_class_in_a_module(text: str, policy: bool) -> None:
    """Python names with dots, a colon, a name."""
    assert (POLICY.fullmatch(text) is not None) == policy


def test_the_schema_names_every_strategy_and_alias() -> None:
    """With the pattern of a policy last."""
    *names, policy = NAME.json_schema()["anyOf"]
    assert [each["const"] for each in names] == [*KINDS, *ALIASES]
    assert all(each["description"] for each in names)
    assert policy["pattern"] == f"^{POLICY.pattern}$"


def test_the_schema_has_every_parameter() -> None:
    """A policy's parameters have any names, with one scalar each."""
    schema = PARAMETERS.json_schema()
    wanted = {parameter.name for each in KINDS.values() for parameter in each.parameters}
    assert set(schema["properties"]) == wanted
    assert schema["additionalProperties"] == {"type": ["string", "number", "boolean"]}


@pytest.mark.parametrize(
    ("default", "kind", "least", "most"),
    [(5, "integer", "minimum", "maximum"), ("a", "string", "minLength", "maxLength")],
)
def test_the_schema_of_a_parameter(default: Any, kind: str, least: str, most: str) -> None:
    """The bounds of a number, or of the length of a text."""
    assert parameter_schema("rr", Parameter("p", default, 1, 9, "Help.")) == {
        "type": kind,
        least: 1,
        most: 9,
        "default": default,
        "description": "rr: Help.",
    }


def test_a_section_of_scalars_is_taken_as_it_is() -> None:
    """The same object, with every type that there is."""
    section = {"a": 1, "b": "x", "c": True, "d": 1.5}
    assert scalars(section) is section
    assert scalars({}) == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "where a section belongs"),
        ("a", "where a section belongs"),
        (None, "where a section belongs"),
        ({"a": [1]}, "`a` has a list; give each parameter one number"),
        ({"a": {}}, "`a` has"),
        ({"a": None}, "`a` has"),
        ({1: 2}, "has 2"),
    ],
)
def test_what_is_no_section_of_scalars(value: Any, said: str) -> None:
    """The error names the parameter."""
    with pytest.raises(ValueError, match=said):
        scalars(value)
