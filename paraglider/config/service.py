"""A service of the configuration file, and its backends, as immutable objects (pydantic 2).

Lives here: ``Service``, ``BackendConfig``, ``BackendSource``, ``ServiceTimeouts``; ``config.model``
has the rest of the file, and gives these names on.
Rules: as in ``config.model``. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from paraglider.config.health import Check
from paraglider.config.method import METHODS, Method, default_method, method_names
from paraglider.config.section import Seconds, Section
from paraglider.config.strategy import StrategyName, StrategyParameters
from paraglider.config.types import (
    ALL_PORTS,
    Address,
    AddressWithPrefix,
    Port,
    PortRange,
    Ports,
)
from paraglider.core.policy_guard import kind
from paraglider.core.strategies import Strategy

#: the port of the DNS, and seconds for which its answered flows are kept
_DNS = 53
_DNS_REPLY = 5


class ServiceTimeouts(Section):
    """Idle timeouts of one service's flows, in seconds, if they differ from the global ones."""

    udp_reply: Seconds | None = Field(
        default=None,
        description="UDP: after the response; default: `udp`, or 5 with port 53 only.",
    )


def _backend_from_text(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class _AddressAlone:
    """Lets the JSON Schema accept a backend written as its address only."""

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "description": "Its address."}, handler(schema)]}


class BackendConfig(Section):
    """One real server."""

    address: Address = Field(description="Address of the backend.")
    port: Port | None = Field(
        default=None, description="Port of the backend, if it differs from the service's."
    )
    weight: int = Field(default=1, ge=0, le=65535, description="Share of new flows; 0: none.")

    @property
    def name(self) -> str:
        """Its name in messages: ADDRESS, or ADDRESS:PORT if its port is mapped."""
        if self.port is None:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class BackendSource(Section):
    """Where the backends are listed, if not here: a file, or the DNS. Give one of the two."""

    file: str | None = Field(
        default=None,
        pattern=r"^/",
        max_length=4095,
        description="A file with one backend per line.",
    )
    dns: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?$",
        max_length=253,
        description="A name with SRV records, which have ports and weights.",
    )
    server: str | None = Field(
        default=None,
        description="With dns: ADDRESS:PORT of the name server; default: /etc/resolv.conf.",
    )


_Backends = Annotated[
    tuple[Annotated[BackendConfig, BeforeValidator(_backend_from_text), _AddressAlone], ...],
    Field(min_length=1, strict=False),
]
_LISTED: TypeAdapter[tuple[BackendConfig, ...]] = TypeAdapter(_Backends)


def _listed_or_source(value: Any, _handler: ValidatorFunctionWrapHandler) -> Any:
    """Validates each form by itself, so that an error is about the form that was used."""
    if isinstance(value, BackendSource):
        return value
    if isinstance(value, dict):
        return BackendSource.model_validate(value)
    return _LISTED.validate_python(value)


def _known_method(value: Any) -> str:
    """Refuses names that are not registered methods, with pydantic's error for a ``Literal``."""
    names = method_names()
    if isinstance(value, str) and value in names:
        return value
    expected = [f"'{name}'" for name in names]
    listed = " or ".join((", ".join(expected[:-1]), expected[-1])) if names[1:] else expected[0]
    raise PydanticKnownError("literal_error", {"expected": listed})


class _OneOfTheMethods:
    """Adds the methods and the default to the JSON Schema."""

    @staticmethod
    def __get_pydantic_json_schema__(
        _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"default": default_method(), "enum": list(method_names()), "type": "string"}


MethodName = Annotated[str, PlainValidator(_known_method), _OneOfTheMethods]


class Service(Section):
    """A VIP, a protocol and its ports, balanced over one pool."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="Name of the service."
    )
    vip: AddressWithPrefix = Field(description="Virtual address; the prefix is for the set-up.")
    protocol: Literal["tcp", "udp", "any"] = Field(description="any: TCP, UDP and ICMP echo.")
    ports: Ports = Field(default=(ALL_PORTS,), description="80, a range, or a list; default: all.")
    forward: MethodName = Field(
        default_factory=default_method,
        description="Forward method: how packets get to the backend.",
    )
    return_: Literal["via", "direct"] = Field(
        default="via",
        alias="return",
        description="via: replies pass this host; direct: the backend answers the client.",
    )
    strategy: StrategyName = Field(
        default="rr", description="What picks the backend of a new flow, or package.module:Class."
    )
    strategy_parameters: StrategyParameters = Field(
        default_factory=dict, description="Parameters of the strategy, by their names."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=18_446_744_073_709_551_615,
        description="Key of the strategy's hash; machines that must agree have the same one."
        " Left out: the key of this host, drawn at the first set-up.",
    )
    affinity: Literal["flow", "client"] = Field(
        default="flow", description="client: a client keeps its backend."
    )
    snat: Address | None = Field(default=None, description="Source address that the backends see.")
    proxy_protocol: Literal["v1", "v2"] | None = Field(
        default=None,
        description="Proxy: send the client's address to the backends before its data.",
    )
    check: Check | None = None
    all_down: Literal["use_all", "reject"] = Field(
        default="reject",
        description="If every backend is down: refuse new flows at once, or use all as if up.",
    )
    on_down: Literal["reset", "keep"] = Field(
        default="reset", description="Flows of a backend that goes down: reset or kept."
    )
    drain_timeout: Seconds | None = Field(
        default=None,
        description="Seconds until a draining backend's flows end; default: only UDP, after 15 s.",
    )
    timeouts: ServiceTimeouts = ServiceTimeouts()
    slow_start: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="Seconds until a backend that comes up has its full weight.",
    )
    listed: Annotated[_Backends | BackendSource, WrapValidator(_listed_or_source)] = Field(
        alias="backends", description="The backends, or where they are listed."
    )

    @property
    def backends(self) -> tuple[BackendConfig, ...]:
        """The backends listed in the file; empty if it names a source."""
        return self.listed if isinstance(self.listed, tuple) else ()

    @property
    def source(self) -> BackendSource | None:
        """Where the backends are listed, if not in the file."""
        return self.listed if isinstance(self.listed, BackendSource) else None

    def with_backends(self, backends: tuple[BackendConfig, ...]) -> Service:
        """The same service with ``backends`` in place of its own."""
        return self.model_copy(update={"listed": backends})

    @property
    def family(self) -> int:
        """4 or 6: the family of the VIP, and so of the service."""
        return self.vip.version

    @property
    def protocols(self) -> tuple[str, ...]:
        """The transport protocols with ports: ("tcp", "udp") for `any`."""
        return ("tcp", "udp") if self.protocol == "any" else (self.protocol,)

    @property
    def method(self) -> Method:
        """The forward method that ``forward`` names."""
        return METHODS[self.forward]

    @property
    def answers(self) -> Literal["via", "direct"]:
        """The way of the replies: by ``return``, unless the method has only one way."""
        return self.method.answers(self)

    @property
    def hash_seed(self) -> int:
        """The key of its hashes: ``seed``, or 0 where it has none (``Config.seeded``)."""
        return 0 if self.seed is None else self.seed

    @property
    def all_ports(self) -> bool:
        """True when no port is excepted, so that a rule needs no port match."""
        return self.ports == (ALL_PORTS,)

    @property
    def single_port(self) -> int | None:
        """The port of a service with exactly one, else None."""
        return self.ports[0].first if len(self.ports) == 1 and len(self.ports[0]) == 1 else None

    @property
    def udp_reply(self) -> int | None:
        """Seconds for which an answered UDP flow is kept; None: as any (RFC 4787 REQ-5a)."""
        known = self.timeouts.udp_reply
        return _DNS_REPLY if known is None and self.single_port == _DNS else known

    @property
    def counted(self) -> bool:
        """Whether the kernel has to count the flows of each backend: the strategy may use them, and
        workers see only first packets.
        """
        return self.method.conntracked and self.strategy_class.counts_flows

    @property
    def strategy_class(self) -> type[Strategy]:
        """The class of its strategy; for a policy (package.module:Class) the guard around it."""
        return kind(self.strategy)

    def reply_ports(self, backend: BackendConfig) -> tuple[PortRange, ...]:
        """The ports that ``backend`` answers from: its own mapped port or the service's."""
        return (PortRange(backend.port, backend.port),) if backend.port else self.ports
