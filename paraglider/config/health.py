"""The sections about health checks, a service's check and failover; the kinds of probes.

Lives here: ``AgentCheck``, ``Check``, ``CheckStep``, ``Expect``, ``Failover``; ``ProbeKind``, the
part of ``health.probes.base.Probe`` that the configuration reads; ``probes`` returns them
by name.
Rules: as in ``model``. The keys are described in docs/health.md. ``paraglider.forward.registry``
registers the folder of the probes, so that imports point down. It is read at the first use: a
configuration without a check imports no probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.payload import BytesPattern, Payload
from paraglider.config.section import Duration, Section
from paraglider.config.strategy import parameter_schema, scalars
from paraglider.config.types import Address, Pattern, Port, Statuses, StatusRange
from paraglider.core.parameter import Parameter

#: upper limit of the default timeout of a probe, in seconds
LONGEST_TIMEOUT: Final = 1.0

_Text = Annotated[str, Field(max_length=1000)]


class ProbeKind:
    """What `type` of a check names. Attributes are facts that hold for all its checks."""

    #: the value of `type`
    name: ClassVar[str]
    #: when a backend passes, as the end of the sentence "Passes if the backend …"
    summary: ClassVar[str]
    #: optional keys of `check` that this probe takes
    keys: ClassVar[frozenset[str]] = frozenset()
    #: further settings of the probe, below `parameters`
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    #: it needs a port
    needs_port: ClassVar[bool] = False
    #: it sends packets through a raw socket (``health.pinger.Pinger``)
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
                {"const": name, "description": f"Passes if the backend {probe.summary}."}
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


class Expect(Section):
    """Conditions on the HTTP response for the backend to pass."""

    status: Statuses = Field(
        default=(StatusRange(200, 399),), description='200, "200-399", or a list of these.'
    )
    body: Pattern | None = Field(
        default=None, description="Regular expression found in the first 64 KiB of the body."
    )


class CheckStep(Section):
    """A step of a conversation with the backend: what is sent, then what has to come."""

    send: Payload | None = Field(
        default=None, description=r"Text to send; its escapes are \r \n \t \0 \\ \xHH."
    )
    expect: BytesPattern | None = Field(
        default=None, description="Regular expression found in the bytes that come."
    )


class Check(Section):
    """The health check of each backend of the service."""

    type: ProbeName = Field(default="tcp", description="Kind of the check.")
    port: Port | None = Field(
        default=None, description="Port to check; default: the port of the flows."
    )
    path: str = Field(
        default="/",
        pattern=r"^/[!-~]*$",
        max_length=1000,
        description="http, https: path of the request.",
    )
    host: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.:\[\]-]{1,255}$",
        description="http, https: value of Host, and name of the certificate.",
    )
    expect: Expect = Expect()
    verify: bool = Field(
        default=False, description="https: the certificate must be valid for `host`."
    )
    steps: tuple[CheckStep, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        strict=False,
        description="tcp, udp: what is sent to the backend, and what it has to answer.",
    )
    command: tuple[_Text, ...] | None = Field(
        default=None,
        min_length=1,
        strict=False,
        description="exec: program with its arguments; exit code 0 passes.",
    )
    parameters: ProbeParameters = Field(
        default_factory=dict, description="Further parameters of the probe, by their names."
    )
    interval: Duration = Field(default=2.0, description="Seconds between two checks.")
    timeout: Duration | None = Field(
        default=None, description="Seconds for a whole check; default: `interval`, at most 1."
    )
    rise: int = Field(
        default=2, ge=1, le=1000, description="Consecutive passes until a backend is up."
    )
    fall: int = Field(
        default=3, ge=1, le=1000, description="Consecutive failures until a backend is down."
    )

    @property
    def probe(self) -> ProbeClass:
        """The class of its probe."""
        return probes()[self.type]

    def parameter(self, name: str) -> Any:
        """The parameter ``name`` of its probe as given, or its default."""
        defaults = {each.name: each.default for each in self.probe.parameters}
        return self.parameters.get(name, defaults[name])

    @property
    def effective_timeout(self) -> float:
        """Timeout of a probe, in seconds.

        The default is short enough that a silent backend is down within `interval` × `fall` + 1 s:
        the next probe begins after `interval` at the latest, and `fall` probes in sequence take
        `fall` × min(`interval`, 1).
        """
        return self.timeout if self.timeout is not None else min(self.interval, LONGEST_TIMEOUT)


class AgentCheck(Section):
    """A program on each backend that sets its weight and state, as HAProxy's agent-check."""

    port: Port = Field(description="Port on which the backend's agent answers.")
    send: Payload | None = Field(
        default=None, description=r"Text to send first; its escapes are \r \n \t \0 \\ \xHH."
    )
    interval: Duration = Field(default=2.0, description="Seconds between two questions.")
    timeout: Duration | None = Field(
        default=None, description="Seconds for a whole answer; default: `interval`, at most 1."
    )


class Failover(Section):
    """Failover mode (`-f`): hosts of the backends' network that answer a ping and serve are
    backends.
    """

    enabled: bool = Field(default=False, description="Enable failover without `-f`.")
    check_cycle: Duration = Field(default=30.0, description="Seconds between two rounds.")
    port_alive: Port = Field(default=80, description="TCP port on which a live backend accepts.")
    broadcast: Address | None = Field(default=None, description="Broadcast address to ping.")
    discover: bool = Field(default=True, description="Add hosts that answer and are not listed.")
    rise: int = Field(default=2, ge=1, le=1000, description="Good rounds until a backend is up.")
    fall: int = Field(default=3, ge=1, le=1000, description="Bad rounds until a backend is down.")
    timeout: Duration = Field(default=2.0, description="Seconds to wait for one answer.")
