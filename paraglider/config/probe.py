"""The configuration's part of a probe: the keys of `check` that it takes, its needs.

Lives here: ``ProbeKind``, the part of ``health.probes.base.Probe`` that the configuration reads,
``probes``, which returns them by name, and the types of `type` and `parameters`.
Rules: ``paraglider.forward.registry`` registers the folder of the probes, so that imports point
down. It is read at the first use: a configuration without a check imports no probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.strategy import parameter_schema, scalars
from paraglider.core.parameter import Parameter

if TYPE_CHECKING:
    from paraglider.config.health import Check


class ProbeKind:
    """What `type` of a check names. Attributes are facts that hold for all its checks."""

    #: the value of `type`
    name: ClassVar[str]
    #: when a backend passes, as the end of the sentence "A backend passes that …"
    summary: ClassVar[str]
    #: optional keys of `check` that this probe takes
    keys: ClassVar[frozenset[str]] = frozenset()
    #: further settings of its own, below `parameters`
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    #: it needs a port
    needs_port: ClassVar[bool] = False
    #: it sends packets of its own through a raw socket (``health.pinger.Echo``)
    needs_raw_socket: ClassVar[bool] = False
    #: it runs a program: the monitor then keeps the whole file system
    runs_program: ClassVar[bool] = False

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """The errors of ``check`` (at ``path``), which has this type, except keys that the probe
        does not take, and parameters.
        """
        del path, check  # this one has none
        return iter(())


ProbeClass = type[ProbeKind]


_readers: list[Callable[[], Mapping[str, type[ProbeKind]]]] = []


def register(read: Callable[[], Mapping[str, type[ProbeKind]]]) -> None:
    """Set ``read``, which returns the probes and is called at the first use."""
    _readers[:] = [read]


def probes() -> Mapping[str, type[ProbeKind]]:
    """The probes by their names; raises ``RuntimeError`` when none is registered."""
    if not _readers:
        raise RuntimeError("no probe is registered: import paraglider.forward.registry")
    return _readers[0]()


def _known(value: str) -> str:
    """Refuses names that are not probes, with pydantic's error for a ``Literal``."""
    if value in probes():
        return value
    *others, last = (f"'{name}'" for name in probes())
    expected = f"{', '.join(others)} or {last}" if others else last
    raise PydanticKnownError("literal_error", {"expected": expected})


class _OneOfTheProbes:
    """Adds the probes, and when a backend passes each, to the JSON Schema."""

    @staticmethod
    def __get_pydantic_json_schema__(
        _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"const": name, "description": f"A backend passes that {probe.summary}."}
                for name, probe in probes().items()
            ]
        }


class _ParametersOfTheProbes:
    """Adds the parameters of all probes to the JSON Schema."""

    @staticmethod
    def __get_pydantic_json_schema__(
        _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "type": "object",
            "properties": {
                parameter.name: parameter_schema(name, parameter)
                for name, probe in probes().items()
                for parameter in probe.parameters
            },
            "additionalProperties": False,
        }


ProbeName = Annotated[str, AfterValidator(_known), _OneOfTheProbes]
ProbeParameters = Annotated[dict[str, Any], BeforeValidator(scalars), _ParametersOfTheProbes]
