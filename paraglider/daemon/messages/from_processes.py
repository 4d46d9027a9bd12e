"""Messages from the processes to the supervisor, which trusts none of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from paraglider.config.types import IPInterface
from paraglider.daemon.messages.base import MOST_LISTED, DnsName, FlowMatch, Index, Mark, Message
from paraglider.health.results import (
    AgentReport,
    CheckReport,
    DiscoveredHost,
    HealthChange,
    Line,
    Name,
)
from paraglider.host.dns_records import MOST_TARGETS, Record
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

#: most backends in one DNS answer: a target may have several addresses
MOST_RECORDS: Final = 16 * MOST_TARGETS
#: most objects in one message about the host
MOST_CONDITIONS: Final = 300
#: most services without a table in one message
MOST_UNPLACED: Final = 1 << 16
#: most interfaces in one message
MOST_DEVICES: Final = 1 << 16
#: most addresses of one interface in one message
MOST_ADDRESSES: Final = 1 << 16


def _no_integer(value: object) -> object:
    """Raises ValueError for an integer, so that one out of bounds does not become a float."""
    if isinstance(value, int):
        raise ValueError("an integer")
    return value


_Text = Annotated[str, Field(max_length=1000)]
_Scalar = (
    Annotated[str, Field(max_length=4096)]
    | bool
    | Annotated[int, Field(ge=-(1 << 63), le=(1 << 64) - 1)]
    | Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_integer)]
    | None
)
Severity = Literal["degraded", "unhealthy"]
#: the listener of a request
Listener = Literal["control", "stats"]
View = Literal["services", "backends", "workers", "health", "carrier", "node", "status"]


class FlowList(Message):
    """The flows found; ``more``: there are more than ``limit``."""

    type: Literal["flow-list"] = "flow-list"
    flows: Annotated[tuple[dict[str, _Scalar], ...], Field(max_length=MOST_LISTED)]
    more: bool


class KilledFlows(Message):
    """The number of flows ended."""

    type: Literal["killed-flows"] = "killed-flows"
    killed: Index


class UnplacedServices(Message):
    """The services that the kernel would decide, and for whose tables it has no room."""

    type: Literal["unplaced-services"] = "unplaced-services"
    services: Annotated[tuple[Name, ...], Field(max_length=MOST_UNPLACED)]


class HealthNews(Message):
    """Results since the last message: the newest check of each backend, changes of states,
    hosts, what agents say.
    """

    type: Literal["health-news"] = "health-news"
    reports: tuple[CheckReport, ...] = ()
    changes: tuple[HealthChange, ...] = ()
    hosts: tuple[DiscoveredHost, ...] = ()
    agents: tuple[AgentReport, ...] = ()


class DnsUpdate(Message):
    """The backends of the DNS name ``name``; ``ttl`` is seconds."""

    type: Literal["dns-answer"] = "dns-answer"
    name: DnsName
    records: Annotated[tuple[Record, ...], Field(max_length=MOST_RECORDS)]
    ttl: Annotated[float, Field(ge=0.0, le=1e10)]


class DnsFailure(Message):
    """The DNS has no backend for ``name``, or the query failed; ``why`` is one line."""

    type: Literal["dns-failure"] = "dns-failure"
    name: DnsName
    why: Line


class FileChanged(Message):
    """``file`` has changed; the monitor has not read it."""

    type: Literal["file-changed"] = "file-changed"
    file: Name


class HostConditions(Message):
    """All present conditions of the host: severity and text, by object."""

    type: Literal["host-conditions"] = "host-conditions"
    found: Annotated[
        dict[_Text, tuple[Severity, _Text]],
        Field(max_length=MOST_CONDITIONS),
    ]

    @classmethod
    def of(cls, found: dict[str, tuple[Severity, str]]) -> HostConditions:
        """``found``, cut to the bounds."""
        some = list(found.items())[:MOST_CONDITIONS]
        return cls(found={name[:1000]: (how, text[:1000]) for name, (how, text) in some})


class HostAddresses(Message):
    """The interfaces of this host, and the addresses of those that the file names for its own
    addresses (``config.own_address``).
    """

    type: Literal["host-addresses"] = "host-addresses"
    interfaces: Annotated[tuple[Name, ...], Field(max_length=MOST_DEVICES)]
    addresses: Annotated[
        dict[Name, Annotated[tuple[IPInterface, ...], Field(max_length=MOST_ADDRESSES)]],
        Field(max_length=MOST_DEVICES),
    ]


class TablesRestored(Message):
    """The tables of offloaded flows of these families were restored to the set-up."""

    type: Literal["tables-restored"] = "tables-restored"
    families: tuple[Annotated[int, Field(ge=4, le=6, multiple_of=2)], ...]


class HostChanged(Message):
    """The changes made to the host, one line each."""

    type: Literal["host-changed"] = "host-changed"
    done: tuple[str, ...]


class ConnectionCounts(Message):
    """The numbers of the kernel's connections, by mark."""

    type: Literal["connection-counts"] = "connection-counts"
    marks: dict[Mark, Index]


class SlotCount(NamedTuple):
    """What BPF carried between a service and a backend, in IP packets and their bytes; ``out`` is
    to the backend.
    """

    packets_out: Index
    bytes_out: Index
    packets_back: Index
    bytes_back: Index


class CarrierReading(Message):
    """The interfaces at which BPF carries, and why not at others (``failed``); those at whose XDP
    too, and why not at that of others (``no_xdp``); its counters by the name of their slot
    (``bpf.layout.slot_name``, in hex), and the packets that its programs saw, by reason.
    """

    devices: Annotated[tuple[Name, ...], Field(max_length=MOST_DEVICES)] = ()
    failed: dict[Name, _Text] = Field(default_factory=dict)
    xdp: Annotated[tuple[Name, ...], Field(max_length=MOST_DEVICES)] = ()
    no_xdp: dict[Name, _Text] = Field(default_factory=dict)
    slots: dict[Name, SlotCount] = Field(default_factory=dict)
    reasons: dict[Name, Index] = Field(default_factory=dict)


class CarrierDevices(Message):
    """The interfaces at which BPF carries now, and those at whose XDP too."""

    type: Literal["carrier-devices"] = "carrier-devices"
    devices: Annotated[tuple[Name, ...], Field(max_length=MOST_DEVICES)]
    xdp: Annotated[tuple[Name, ...], Field(max_length=MOST_DEVICES)] = ()


class Reading(Message):
    """Counters by family: of the offload table (by name, and by mark), and of refused flows (by
    protocol); how full conntrack is; the error of a family that could not be read; what BPF
    carried, None without it.
    """

    type: Literal["reading"] = "reading"
    tables: dict[int, dict[Name, Index] | None] = Field(default_factory=dict)
    carried: dict[int, dict[Mark, dict[Name, CounterValue]]] = Field(default_factory=dict)
    refused: dict[int, dict[Name, Index] | None] = Field(default_factory=dict)
    fill: Fill | None = None
    errors: dict[int, str] = Field(default_factory=dict)
    carrier: CarrierReading | None = None


class ClientRequest(Message):
    """A request of a client of http: where it came in, and the number of its connection there, 0 at
    the stats page.
    """

    listener: Listener
    connection: Index = 0


class ShowRequest(ClientRequest):
    """Show services, backends (of ``service``, or all), processes, health, the carrier of
    flows, whether this balancer is drained, or all of it.

    Health is that of ``vip``, well while ``when`` of its services have a backend; or ``of`` this
    balancer alone; or of everything.
    """

    type: Literal["show"] = "show"
    view: View
    service: Name | None = None
    of: Literal["node"] | None = None
    vip: Name | None = None
    when: Literal["any", "all"] = "any"


class FlowsRequest(ClientRequest):
    """List at most ``limit`` flows."""

    type: Literal["flows"] = "flows"
    match: FlowMatch = FlowMatch()
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = MOST_LISTED


class KillRequest(ClientRequest):
    """End flows; all of them only with ``all``."""

    type: Literal["kill"] = "kill"
    match: FlowMatch = FlowMatch()
    all: bool = False


class SetRequest(ClientRequest):
    """Set a backend's state, its weight, or both; ``token`` is needed from the stats listener."""

    type: Literal["set"] = "set"
    service: Name
    backend: Name
    state: Name | None = None
    weight: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    token: Name | None = None


class ReloadRequest(ClientRequest):
    """Reload the configuration file; ``force``: even if that ends live flows."""

    type: Literal["reload"] = "reload"
    force: bool = False


class CarrierRequest(ClientRequest):
    """Have BPF carry flows, or have the workers carry them all."""

    type: Literal["carrier"] = "carrier"
    state: Literal["on", "off"]


class NodeRequest(ClientRequest):
    """Drain this balancer, over restarts of the daemon or ``until_restart``; or end that."""

    type: Literal["node"] = "node"
    state: Literal["drain", "ready"]
    until_restart: bool = False


class AnnounceRequest(ClientRequest):
    """Tell the health of the VIPs that are announced, from now on: at once, and when it changes."""

    type: Literal["announce"] = "announce"
