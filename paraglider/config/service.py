"""A service of the configuration file, and its forward method.

Lives here: ``Service``, ``ServiceTimeouts``; ``config.backend`` has its backends, ``config.model``
the rest of the file. ``Method`` is the part of
``forward.base.ForwardMethod`` that the configuration and the layers below ``forward`` use, and
``METHODS`` are the methods by name.
Rules: as in ``config.model``. No I/O. ``METHODS`` is empty until ``paraglider.forward.registry`` is
imported, which fills it; so imports point down, and the model's error messages and schema still
name every method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from paraglider.config.backend import BackendConfig, BackendsOrSource, BackendSource, MinReady
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.encapsulation import EncapsulationConfig
from paraglider.config.health import AgentCheck, Check
from paraglider.config.network import Network
from paraglider.config.own_address import AddressOrOwn, OwnAddress
from paraglider.config.route import RouteConfig
from paraglider.config.section import DurationOrZero, Seconds, Section
from paraglider.config.strategy import StrategyName, StrategyParameters
from paraglider.config.types import (
    ALL_PORTS,
    AddressWithPrefix,
    IPAddress,
    PortRange,
    Ports,
)
from paraglider.core.policy_guard import kind
from paraglider.core.strategies import Strategy


class Method(ABC):
    """A value of a service's ``forward``. Attributes apply to all services of the method."""

    #: the value of ``forward``
    name: ClassVar[str]

    #: optional keys of a service that this method takes
    options: ClassVar[frozenset[str]] = frozenset()

    #: packets (the first of a flow, or all) pass the queue of a worker
    queued: ClassVar[bool] = False

    #: a proxy worker listens at the VIP and accepts the connections
    listens: ClassVar[bool] = False

    #: the kernel's conntrack has the flows, translates and counts them; a worker decides once
    conntracked: ClassVar[bool] = False

    #: a worker has the flows in its own table, and in a journal for its successor
    journalled: ClassVar[bool] = False

    #: the VIP is an address of this host; otherwise only the backends have it
    owns_vip: ClassVar[bool] = True

    #: the backends have to be in a network of the private interface
    neighbours: ClassVar[bool] = False

    #: the program at XDP carries its packets, if it has a carrier in BPF
    at_xdp: ClassVar[bool] = True

    #: its program asks the kernel for the source address of a route (Linux 6.7)
    asks_for_source: ClassVar[bool] = False

    #: an address of loopback can be a VIP or a backend
    loopback: ClassVar[bool] = False

    @abstractmethod
    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """The errors of ``service``, which has this method and is at ``path``, in a file with
        ``network``, except keys that the method does not take (``options``).
        """

    @abstractmethod
    def describe(self, service: Service) -> str:
        """The properties of the method for ``service``: cost, requirements, what the backends
        see.
        """

    def answers(self, service: Service) -> Literal["via", "direct"]:
        """The way of the replies: through this host, or from the backend to the client."""
        return service.return_

    def answers_pass(self, service: Service) -> bool:
        """Whether packets of the backends' answers are forwarded by this host."""
        return self.queued and self.answers(service) == "via"


#: the registered methods by their names, in the order of the registry; the first is the default
METHODS: dict[str, Method] = {}


def method_names() -> tuple[str, ...]:
    """The names of the registered methods; raises ``RuntimeError`` when there is none."""
    if not METHODS:
        raise RuntimeError("no forwarding method is registered: import paraglider.forward.registry")
    return tuple(METHODS)


def default_method() -> str:
    """The method of a service without ``forward``."""
    return method_names()[0]


#: the port of the DNS, and seconds for which its answered flows are kept
_DNS = 53
_DNS_REPLY = 5


class ServiceTimeouts(Section):
    """Idle timeouts of one service's flows, in seconds, if they differ from the global ones."""

    udp_reply: Seconds | None = Field(
        default=None,
        description="UDP: after the response; default: `udp`, or 5 with port 53 only.",
    )


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
    encapsulation: EncapsulationConfig = EncapsulationConfig()
    carrier: Literal["auto", "bpf", "xdp", "worker"] = Field(
        default="auto",
        description="What carries a flow once its backend is decided: auto: a BPF program where the"
        " kernel has it, else the worker; bpf: the program only; xdp: the program, in the drivers"
        " of the interfaces too; worker: the worker only.",
    )
    decide: Literal["auto", "python", "hash"] = Field(
        default="python",
        description="What picks the backend of a new flow, where BPF carries: python: a worker;"
        " auto: the program in the kernel if the service needs no more than a table, unseen by the"
        " host's firewall; hash: the program for each packet, without flows (dsr, tunnel).",
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
        " Default: the `seed` of the file, else the key of this host.",
    )
    affinity: Literal["flow", "client"] = Field(
        default="flow", description="client: a client keeps its backend."
    )
    adopt: Literal["auto", "never"] = Field(
        default="auto",
        description="TCP flows that began at another balancer: auto: they continue here, if the"
        " strategy is a hash; never: they are reset.",
    )
    snat: AddressOrOwn | None = Field(
        default=None,
        description="Source address that the backends see, or the interface of this host with it.",
    )
    proxy_protocol: Literal["v1", "v2"] | None = Field(
        default=None,
        description="Proxy: send the client's address to the backends before its data.",
    )
    route: RouteConfig | None = Field(
        default=None,
        description="Proxy: TLS connections that go to backends of their own, by SNI and ALPN. A"
        " route has `backends`, and any other key of a service but vip, protocol, ports, forward.",
    )
    check: Check | None = None
    agent: AgentCheck | None = None
    all_down: Literal["use_all", "reject"] = Field(
        default="reject",
        description="If every backend is down: refuse new flows at once, or use all as if up.",
    )
    min_ready: MinReady = Field(
        default="50%",
        description="With fewer backends that take new flows `health` is degraded: a number, or a"
        " share of those with a weight; 0: never.",
    )
    on_down: Literal["reset", "keep"] = Field(
        default="reset", description="Flows of a backend that goes down: reset or kept."
    )
    drain_timeout: Seconds | None = Field(
        default=None,
        description="Seconds until a draining backend's flows end; default: UDP and ping only, 15.",
    )
    timeouts: ServiceTimeouts = ServiceTimeouts()
    slow_start: DurationOrZero = Field(
        default=0.0, description="Seconds until a backend that comes up has its full weight."
    )
    listed: BackendsOrSource = Field(
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
        """The same service with ``backends`` instead of its own."""
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
    def snat_address(self) -> IPAddress | None:
        """The source address that the backends see; None without `snat`, and while the address of
        its interface is not known.
        """
        if not isinstance(self.snat, OwnAddress):
            return self.snat
        found = self.snat.of_family(self.family)
        return None if found is None else found.ip

    @property
    def adopts(self) -> bool:
        """Whether flows that began elsewhere continue here, if its strategy is ``repeatable``: a
        client with affinity may have had another backend elsewhere, and with ``snat`` the backend
        knows the flow by a port that the other balancer has chosen.
        """
        has_choice = "adopt" in self.method.options and self.snat is None
        return has_choice and self.adopt == "auto" and self.affinity == "flow"

    @property
    def wants_bpf(self) -> bool:
        """Whether BPF carries its flows if the kernel can: by ``carrier`` and by its method."""
        return self.carrier != "worker" and "carrier" in self.method.options

    @property
    def needs_bpf(self) -> bool:
        """Whether it cannot work without BPF: it wants BPF, and ``carrier`` is not `auto`."""
        return self.wants_bpf and self.carrier != "auto"

    @property
    def wants_xdp(self) -> bool:
        """Whether BPF carries its flows also at XDP: `carrier` is `xdp`, and the method can."""
        return self.wants_bpf and self.carrier == "xdp" and self.method.at_xdp

    @property
    def hash_seed(self) -> int:
        """The seed of its hashes: ``seed``, or 0 without one (``Config.seeded``)."""
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
        """Whether the kernel has to count the flows of each backend, which the strategy uses."""
        return self.method.conntracked and self.strategy_class.counts_flows

    @property
    def strategy_class(self) -> type[Strategy]:
        """The class of its strategy; for a policy (package.module:Class) the guard around it."""
        return kind(self.strategy)

    def reply_ports(self, backend: BackendConfig) -> tuple[PortRange, ...]:
        """The ports that ``backend`` answers from: its own mapped port or the service's."""
        return (PortRange(backend.port, backend.port),) if backend.port else self.ports
