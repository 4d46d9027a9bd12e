"""Every message between the supervisor and its processes, typed and bounded (pydantic 2).

    to workers      SetStates, ApplyConfig, SuspendPolicies, SetCarrier; requests: ListFlows,
                    KillFlows, WriteCounters
    from workers    UnplacedServices, not of proxy workers; answers: FlowList, KilledFlows,
                    Acknowledged, Refusal
    to the monitor      SetTargets, CheckSooner, SetSources
    from the monitor    HealthNews, DnsUpdate, DnsFailure, FileChanged
    to the host helper      requests: ApplyHost, LoadRules, ForgetConnections, CountConnections,
                            ReadTables, SwitchCarrier
    from the host helper    HostConditions, HostAddresses, TablesRestored; answers: HostChanged,
                            ConnectionCounts, Reading, CarrierDevices, Acknowledged, Refusal
    from http   requests: ShowRequest, FlowsRequest, KillRequest, SetRequest, ReloadRequest,
                CarrierRequest, NodeRequest, AnnounceRequest
    to http     VipNews; answers: Result, Refusal

Rules: pure. Processes are not trusted: the supervisor validates their messages strictly against the
union of their role (``FROM_ROLE``), and kills a process that sends an invalid one. Unknown fields
are errors; errors contain no values, since they are logged. Items that come by the thousand are
named tuples, arrays on the wire.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from paraglider.daemon.messages.base import (
    MOST_LISTED,
    Acknowledged,
    DnsName,
    FlowMatch,
    Message,
    Receives,
    Refusal,
)
from paraglider.daemon.messages.from_processes import (
    MOST_RECORDS,
    MOST_UNPLACED,
    AnnounceRequest,
    CarrierDevices,
    CarrierReading,
    CarrierRequest,
    ClientRequest,
    ConnectionCounts,
    DnsFailure,
    DnsUpdate,
    FileChanged,
    FlowList,
    FlowsRequest,
    HealthNews,
    HostAddresses,
    HostChanged,
    HostConditions,
    KilledFlows,
    KillRequest,
    Listener,
    NodeRequest,
    Reading,
    ReloadRequest,
    SetRequest,
    Severity,
    ShowRequest,
    SlotCount,
    TablesRestored,
    UnplacedServices,
    View,
)
from paraglider.daemon.messages.to_processes import (
    ApplyConfig,
    ApplyHost,
    CheckSooner,
    CountConnections,
    ForgetConnections,
    KillFlows,
    ListFlows,
    LoadRules,
    ReadTables,
    Result,
    SetCarrier,
    SetSources,
    SetStates,
    SetTargets,
    SuspendPolicies,
    SwitchCarrier,
    VipNews,
    WriteCounters,
)

__all__ = [
    "FROM_ROLE",
    "MOST_LISTED",
    "MOST_RECORDS",
    "MOST_UNPLACED",
    "TO_ROLE",
    "Acknowledged",
    "AnnounceRequest",
    "ApplyConfig",
    "ApplyHost",
    "CarrierDevices",
    "CarrierReading",
    "CarrierRequest",
    "CheckSooner",
    "ClientRequest",
    "ConnectionCounts",
    "CountConnections",
    "DnsFailure",
    "DnsName",
    "DnsUpdate",
    "FileChanged",
    "FlowList",
    "FlowMatch",
    "FlowsRequest",
    "ForgetConnections",
    "HealthNews",
    "HostAddresses",
    "HostChanged",
    "HostConditions",
    "HostNews",
    "KillFlows",
    "KillRequest",
    "KilledFlows",
    "ListFlows",
    "Listener",
    "LoadRules",
    "Message",
    "NodeRequest",
    "ReadTables",
    "Reading",
    "Receives",
    "Refusal",
    "ReloadRequest",
    "Result",
    "SetCarrier",
    "SetRequest",
    "SetSources",
    "SetStates",
    "SetTargets",
    "Severity",
    "ShowRequest",
    "SlotCount",
    "SuspendPolicies",
    "SwitchCarrier",
    "TablesRestored",
    "UnplacedServices",
    "View",
    "VipNews",
    "WriteCounters",
]

FromProxyWorker = FlowList | KilledFlows | Acknowledged | Refusal
FromWorker = UnplacedServices | FromProxyWorker
ToWorker = (
    SetStates | ApplyConfig | SuspendPolicies | SetCarrier | ListFlows | KillFlows | WriteCounters
)
FromMonitor = HealthNews | DnsUpdate | DnsFailure | FileChanged
ToMonitor = SetTargets | CheckSooner | SetSources
#: what the host helper tells without a request
HostNews = HostConditions | HostAddresses | TablesRestored
FromHostHelper = (
    HostNews | HostChanged | ConnectionCounts | Reading | CarrierDevices | Acknowledged | Refusal
)
ToHostHelper = (
    ApplyHost | LoadRules | ForgetConnections | CountConnections | ReadTables | SwitchCarrier
)
FromHttp = (
    ShowRequest
    | FlowsRequest
    | KillRequest
    | SetRequest
    | ReloadRequest
    | CarrierRequest
    | NodeRequest
    | AnnounceRequest
)
ToHttp = VipNews | Result | Refusal


def _receives(union: Any) -> Receives:
    return TypeAdapter(Annotated[union, Field(discriminator="type")])


_SILENT: Final[Receives] = TypeAdapter(Acknowledged)
_TO_WORKER: Final = _receives(ToWorker)

#: the messages that the supervisor accepts, by the role of the process
FROM_ROLE: Final[dict[str, Receives]] = {
    "worker": _receives(FromWorker),
    "proxy worker": _receives(FromProxyWorker),
    "conntrack counter": _SILENT,
    "monitor": _receives(FromMonitor),
    "host helper": _receives(FromHostHelper),
    "http": _receives(FromHttp),
}
#: the messages that a process accepts from the supervisor, by its role
TO_ROLE: Final[dict[str, Receives]] = {
    "worker": _TO_WORKER,
    "proxy worker": _TO_WORKER,
    "conntrack counter": _SILENT,
    "monitor": _receives(ToMonitor),
    "host helper": _receives(ToHostHelper),
    "http": _receives(ToHttp),
}
