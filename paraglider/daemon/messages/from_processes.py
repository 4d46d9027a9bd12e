"""Messages from the processes to the supervisor, which trusts none of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from paraglider.daemon.messages.base import MOST_LISTED, DnsName, FlowMatch, Index, Mark, Message
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange, Line, Name
from paraglider.host.dns_records import MOST_TARGETS, Record
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

#: most backends in one DNS answer: a target may have several addresses
MOST_RECORDS: Final = 16 * MOST_TARGETS
#: most objects in one message about the host
MOST_CONDITIONS: Final = 300

_Text = Annotated[str, Field(max_length=1000)]
_Scalar = (
    Annotated[str, Field(max_length=4096)]
    | bool
    | Annotated[int, Field(ge=-(1 << 63), le=(1 << 64) - 1)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | None
)
Severity = Literal["degraded", "unhealthy"]
#: the listener of a request
Listener = Literal["control", "stats"]
View = Literal["services", "backends", "workers", "health", "status"]


class FlowList(Message):
    """The flows found; ``more``: there are more than ``limit``."""

    type: Literal["flow-list"] = "flow-list"
    flows: Annotated[tuple[dict[str, _Scalar], ...], Field(max_length=MOST_LISTED)]
    more: bool


class KilledFlows(Message):
    """The number of flows ended."""

    type: Literal["killed-flows"] = "killed-flows"
    killed: Index


class HealthNews(Message):
    """Results since the last message: the newest check of each backend, changes of states,
    hosts.
    """

    type: Literal["health-news"] = "health-news"
    reports: tuple[CheckReport, ...] = ()
    changes: tuple[HealthChange, ...] = ()
    hosts: tuple[DiscoveredHost, ...] = ()


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


class Reading(Message):
    """Counters by family: of the offload table (by name, and by mark), and of refused flows (by
    protocol); how full conntrack is; the error of a family that could not be read.
    """

    type: Literal["reading"] = "reading"
    tables: dict[int, dict[Name, Index] | None] = Field(default_factory=dict)
    carried: dict[int, dict[Mark, dict[Name, CounterValue]]] = Field(default_factory=dict)
    refused: dict[int, dict[Name, Index] | None] = Field(default_factory=dict)
    fill: Fill | None = None
    errors: dict[int, str] = Field(default_factory=dict)


class ShowRequest(Message):
    """Show services, backends (of ``service``, or all), processes, health, or all of it."""

    type: Literal["show"] = "show"
    listener: Listener
    view: View
    service: Name | None = None


class FlowsRequest(Message):
    """List at most ``limit`` flows."""

    type: Literal["flows"] = "flows"
    listener: Listener
    match: FlowMatch = FlowMatch()
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = MOST_LISTED


class KillRequest(Message):
    """End flows; all of them only with ``all``."""

    type: Literal["kill"] = "kill"
    listener: Listener
    match: FlowMatch = FlowMatch()
    all: bool = False


class SetRequest(Message):
    """Set a backend's state, its weight, or both; ``token`` is needed from the stats listener."""

    type: Literal["set"] = "set"
    listener: Listener
    service: Name
    backend: Name
    state: Name | None = None
    weight: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    token: Name | None = None


class ReloadRequest(Message):
    """Reload the configuration file; ``force``: even if that ends live flows."""

    type: Literal["reload"] = "reload"
    listener: Listener
    force: bool = False
