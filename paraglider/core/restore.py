"""Flows that a ledger knows, taken over into a flow table: after a restart, however it came.

Rules: nothing in a ledger raises, whatever bytes are in it. A flow whose service or backend is no
longer configured is left out; so is one whose time was over before anybody could have taken it
over, one whose keys another flow has by now, and one for which there is no room: unanswered flows
make room for others, as everywhere. When a flow was last seen is not known, and so it counts as
seen when its worker was last alive: no flow ends early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from paraglider.core.flow import ICMP, ICMP6, TCP, UDP, Flow, FlowTable
from paraglider.core.flow_states import PROTOCOL_OF
from paraglider.core.journal import Ledger
from paraglider.core.service import Service, ServiceMap
from paraglider.core.translation import Rewrite

#: flows taken over between two signs of life, some 0.1 s where all is interpreted
BEAT: Final = 8192
#: what a sign of life is given by
Beat = Callable[[], object]

_NUMBERS: Final = {"tcp": TCP, "udp": UDP}


def _unheard() -> None:
    """For who is not waited for."""


@dataclass(slots=True)
class Taken:
    """What became of the flows of ledgers: ``kept``; or left out as their service or backend is
    no longer configured (``unknown``), as idle for too long (``expired``), or since another flow
    stands in their place or there is no room (``refused``).
    """

    kept: int = 0
    unknown: int = 0
    expired: int = 0
    refused: int = 0

    def __add__(self, other: Taken) -> Taken:
        """What became of the flows of both."""
        return Taken(
            self.kept + other.kept,
            self.unknown + other.unknown,
            self.expired + other.expired,
            self.refused + other.refused,
        )

    @property
    def left_out(self) -> dict[str, int]:
        """Why flows were left out, without the zeros."""
        reasons = {"unknown": self.unknown, "expired": self.expired, "refused": self.refused}
        return {reason: count for reason, count in reasons.items() if count}


class Rewrites:
    """The rewrites of ``services`` by what a ledger knows of a flow."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._services = ServiceMap(tuple(services))
        self._rewrites = {
            (service, identity): rewrite
            for service in self._services.services
            for rewrite in service.rewrites.values()
            for identity in (rewrite.identity, _named(service, rewrite))
        }
        self._sizes = {identity: len(r.vip) for (_, identity), r in self._rewrites.items()}

    def of(self, state: int, identity: bytes, content: bytes) -> tuple[int, Rewrite | None]:
        """The protocol and the rewrite of a flow, None for one that no service has any more.

        ``content`` begins with the key of the client's packets.
        """
        size = self._sizes.get(identity, 4)
        protocol = _NUMBERS.get(_protocol_of(state), ICMP if size == 4 else ICMP6)
        end = 2 * size + 4
        service = self._services.find(protocol, content[size : 2 * size], content[end - 2 : end])
        return protocol, None if service is None else self._rewrites.get((service, identity))


def resume(
    table: FlowTable, ledger: Ledger, rewrites: Rewrites, now: float, beat: Beat = _unheard
) -> Taken:
    """Give the empty ``table`` its ``ledger``, and the flows that are in it.

    A ledger that is not ``complete`` counts as empty. ``beat`` is called every ``BEAT`` flows.
    """
    table.ledger = ledger
    taken = Taken()
    if ledger.complete:
        _take(table, ledger, rewrites, now, taken, beat)
    else:
        ledger.clear()
    beat()
    ledger.reclaim()
    beat()
    ledger.tick(now)
    return taken


def adopt(
    table: FlowTable, other: Ledger, rewrites: Rewrites, now: float, beat: Beat = _unheard
) -> Taken:
    """Take the flows of another worker's ledger over into ``table``; ``other`` is only read, and
    ``beat`` called as by ``resume``.
    """
    taken = Taken()
    if other.complete:
        _take(table, other, rewrites, now, taken, beat)
    return taken


def write_anew(table: FlowTable, now: float) -> None:
    """Write all flows of ``table`` into its ledger, which has begun anew (``Ledger.begin_anew``).

    Takes a third of a second for a million of them, in which no packet is handled.
    """
    ledger = table.ledger
    if ledger is None:
        return
    ledger.tick(now)
    for flows in table.forward.values():
        for flow in flows.values():
            flow.record = ledger.write(flow.rewrite.identity, flow.forward_key, flow.state)
    ledger.complete = True


def _take(
    table: FlowTable,
    ledger: Ledger,
    rewrites: Rewrites,
    now: float,
    taken: Taken,
    beat: Beat,
) -> None:
    in_place = ledger is table.ledger
    before = len(table)
    alive = ledger.alive
    seen = alive if 0.0 <= alive <= now else now
    over = [seen + seconds <= now for seconds in table.timeouts.by_state]
    flows = 0
    for number, state, identity, content in ledger.read():
        flows += 1
        if not flows % BEAT:
            beat()
        protocol, rewrite = rewrites.of(state, identity, content)
        flow = None
        if rewrite is None or not _protocol_of(state):
            taken.unknown += 1
        elif over[state]:
            taken.expired += 1
        else:
            key = content[: 2 * len(rewrite.vip) + 4]
            flow = Flow(protocol, key, rewrite.reverse_key(key), rewrite, state, seen)
            if not _fits(table, flow) or not table.make_room(protocol, now):
                flow = None
        if flow is not None:
            flow.record = number if in_place else 0
            table.enter(flow)
        elif in_place:
            ledger.erase(number)
    taken.kept = len(table) - before
    taken.refused = flows - taken.kept - taken.unknown - taken.expired


def _protocol_of(state: int) -> str:
    """The name of the protocol of flows in ``state``; empty where no flow can be in it."""
    return PROTOCOL_OF[state] if state < len(PROTOCOL_OF) else ""


def _fits(table: FlowTable, flow: Flow) -> bool:
    """Whether the keys are those of a flow to the VIP, and no other flow's."""
    return (
        flow.forward_key[len(flow.rewrite.vip) : -4] == flow.rewrite.vip
        and flow.forward_key not in table.forward[flow.protocol]
        and flow.reverse_key not in table.reverse[flow.protocol]
    )


def _named(service: Service, rewrite: Rewrite) -> bytes:
    """The identity that ledgers of earlier versions have, for an upgrade loses no flow either."""
    ports = rewrite.vip_port + rewrite.backend_port if rewrite.mapped else b""
    ends = rewrite.vip + rewrite.backend.address + ports
    return blake2b(service.name.encode() + b"\0" + ends, digest_size=8).digest()
