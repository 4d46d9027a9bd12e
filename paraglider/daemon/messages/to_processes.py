"""Messages from the supervisor to workers, the monitor, the host helper and http."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import Field

from paraglider.config.health import AgentCheck, Check
from paraglider.config.types import IPAddress
from paraglider.daemon.messages.base import (
    MOST_LISTED,
    DnsName,
    FlowMatch,
    Index,
    Mark,
    Message,
    PlainConfig,
    PortNumber,
    StateTable,
)
from paraglider.health.results import Name
from paraglider.health.targets import Key, Scope, Target

_T = TypeVar("_T")


class SetStates(Message):
    """Set the states and weights of these backends; ``version`` is that of the store."""

    type: Literal["set-states"] = "set-states"
    states: StateTable
    version: Index = 0


class ApplyConfig(Message):
    """Apply ``config``, with the states and weights of its backends."""

    type: Literal["apply-config"] = "apply-config"
    config: PlainConfig
    states: StateTable
    version: Index = 0


class SuspendPolicies(Message):
    """Suspend the policies of these services, and enable those of all others."""

    type: Literal["suspend-policies"] = "suspend-policies"
    services: tuple[Name, ...]


class SetCarrier(Message):
    """Have BPF carry flows (``on``), or carry them all; a request is acknowledged then."""

    type: Literal["set-carrier"] = "set-carrier"
    on: bool


class ListFlows(Message):
    """Request: list at most ``limit`` flows."""

    type: Literal["list-flows"] = "list-flows"
    match: FlowMatch
    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)]


class KillFlows(Message):
    """Request: end flows."""

    type: Literal["kill-flows"] = "kill-flows"
    match: FlowMatch


class WriteCounters(Message):
    """Request: acknowledge when the counters of all backends have been written."""

    type: Literal["write-counters"] = "write-counters"


class TargetRow(NamedTuple):
    """A ``Target`` whose check and agent are places in lists, -1 for none."""

    service: Name
    backend: Name
    address: IPAddress
    port: PortNumber
    check: int
    up: bool
    found: bool
    agent: int = -1


class _Places(Generic[_T]):
    """Different objects in a list, by identity: sections of the configuration are not hashable."""

    def __init__(self) -> None:
        self.every: list[_T] = []
        self._places: dict[int, int] = {}

    def of(self, one: _T | None) -> int:
        """The place of ``one`` in the list, -1 for None."""
        if one is None:
            return -1
        place = self._places.setdefault(id(one), len(self.every))
        if place == len(self.every):
            self.every.append(one)
        return place


class SetTargets(Message):
    """Targets that are new or changed, and the keys of removed ones (``gone``); with ``whole``
    there are no others. The results of other targets are kept. ``scope`` is None without failover.
    Thousands of targets share few checks and agents, so each is sent once.
    """

    type: Literal["set-targets"] = "set-targets"
    checks: tuple[Check, ...]
    rows: tuple[TargetRow, ...]
    scope: Scope | None = None
    gone: tuple[tuple[Name, Name], ...] = ()
    whole: bool = True
    agents: tuple[AgentCheck, ...] = ()

    @classmethod
    def of(
        cls,
        targets: Iterable[Target],
        scope: Scope | None = None,
        gone: Iterable[Key] = (),
        *,
        whole: bool = True,
    ) -> Self:
        """The message about ``targets``."""
        checks, agents = _Places[Check](), _Places[AgentCheck]()
        rows = [
            TargetRow(
                *target[:4],
                checks.of(target.check),
                target.up,
                target.found,
                agents.of(target.agent),
            )
            for target in targets
        ]
        return cls(
            checks=tuple(checks.every),
            rows=tuple(rows),
            scope=scope,
            gone=tuple(gone),
            whole=whole,
            agents=tuple(agents.every),
        )

    def targets(self) -> tuple[Target, ...]:
        """The targets; raises IndexError if a row names a missing check or agent."""
        return tuple(
            Target(
                *row[:4],
                None if row.check < 0 else self.checks[row.check],
                row.up,
                row.found,
                None if row.agent < 0 else self.agents[row.agent],
            )
            for row in self.rows
        )


class CheckSooner(Message):
    """Check these backends sooner: connections to them failed."""

    type: Literal["check-sooner"] = "check-sooner"
    backends: tuple[tuple[Name, Name], ...]


class SetSources(Message):
    """All DNS names to query and all files to watch from now on; ``resolv_conf`` is the text of
    /etc/resolv.conf, for names without a server.
    """

    type: Literal["set-sources"] = "set-sources"
    names: tuple[DnsName, ...]
    files: tuple[Name, ...]
    resolv_conf: str = ""


class ApplyHost(Message):
    """Request: bring the host to ``config``; answered by HostChanged."""

    type: Literal["apply-host"] = "apply-host"
    config: PlainConfig


class LoadRules(Message):
    """Request: have nft load ``text``."""

    type: Literal["load-rules"] = "load-rules"
    text: str


class ForgetConnections(Message):
    """Request: delete connections from conntrack: all with ``marks``, all but live TCP ones with
    ``passing``, and untranslated UDP ones to ``datagrams`` (VIP, first port, last port).
    """

    type: Literal["forget-connections"] = "forget-connections"
    marks: tuple[Mark, ...] = ()
    passing: tuple[Mark, ...] = ()
    datagrams: tuple[tuple[Name, PortNumber, PortNumber], ...] = ()


class CountConnections(Message):
    """Request: count the kernel's connections by mark; answered by ConnectionCounts."""

    type: Literal["count-connections"] = "count-connections"


class ReadTables(Message):
    """Request: read the counters of the tables of ``families``; answered by Reading."""

    type: Literal["read-tables"] = "read-tables"
    families: tuple[int, ...]


class SwitchCarrier(Message):
    """Request: attach the BPF program to the interfaces (``on``), or detach it; answered by
    CarrierDevices.
    """

    type: Literal["switch-carrier"] = "switch-carrier"
    on: bool


class VipNews(Message):
    """The health of the VIPs that are announced: whether to announce each, its status, and why;
    of those that have changed. With ``loads``, how often the file has said something new about
    announcing, it is of all VIPs: others are not announced any more.
    """

    type: Literal["vip-news"] = "vip-news"
    loads: int | None = None
    vips: dict[str, tuple[bool, str, str]] = Field(default_factory=dict)


class Result(Message):
    """The answer to a request of http: plain data for JSON."""

    type: Literal["result"] = "result"
    value: Any
