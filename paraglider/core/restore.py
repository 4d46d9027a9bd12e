"""Flows that a journal knows, restored into a flow table: after a restart, however it came.

Rules: nothing in a journal raises, whatever bytes are in it. A flow whose service or backend is no
longer configured is left out; so is one whose time was over before anybody could have restored it
over, one whose keys another flow has by now, and one for which there is no room: unanswered flows
make room for others, as everywhere. When a flow was last seen is not known, and so it counts as
seen when its worker was last alive: no flow ends early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from paraglider.core.flow import ICMP, ICMP6, TCP, UDP, Flow
from paraglider.core.flow_states import PROTOCOL_OF
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.translation import Translation

#: flows restored between two signs of life, some 0.1 s where all is interpreted
BEAT: Final = 8192
#: what a sign of life is given by
Beat = Callable[[], object]

_NUMBERS: Final = {"tcp": TCP, "udp": UDP}


def _unheard() -> None:
    """For who is not waited for."""


@dataclass(slots=True)
class Restored:
    """What became of the flows of journals: ``kept``; or left out as their service or backend is
    no longer configured (``unknown``), as idle for too long (``expired``), or since another flow
    stands in their place or there is no room (``refused``).
    """

    kept: int = 0
    unknown: int = 0
    expired: int = 0
    refused: int = 0

    def __add__(self, other: Restored) -> Restored:
        """What became of the flows of both."""
        return Restored(
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


class Translations:
    """The translations of ``services`` by what a journal knows of a flow."""

    def __init__(self, services: Iterable[VirtualService]) -> None:
        self._services = ServiceMap(tuple(services))
        self._rewrites = {
            (service, identity): translation
            for service in self._services.services
            for translation in service.translations.values()
            for identity in (translation.identity, _named(service, translation))
        }
        self._sizes = {identity: len(r.vip) for (_, identity), r in self._rewrites.items()}

    def of(self, state: int, identity: bytes, content: bytes) -> tuple[int, Translation | None]:
        """The protocol and the translation of a flow, None for one that no service has any more.

        ``content`` begins with the key of the client's packets.
        """
        size = self._sizes.get(identity, 4)
        protocol = _NUMBERS.get(_protocol_of(state), ICMP if size == 4 else ICMP6)
        end = 2 * size + 4
        service = self._services.find(protocol, content[size : 2 * size], content[end - 2 : end])
        return protocol, None if service is None else self._rewrites.get((service, identity))


def restore(
    table: FlowTable,
    journal: Journal,
    translations: Translations,
    now: float,
    beat: Beat = _unheard,
) -> Restored:
    """Give the empty ``table`` its ``journal``, and the flows that are in it.

    A journal that is not ``complete`` counts as empty. ``beat`` is called every ``BEAT`` flows.
    """
    table.journal = journal
    restored = Restored()
    if journal.complete:
        _restore(table, journal, translations, now, restored, beat)
    else:
        journal.clear()
    beat()
    journal.reclaim()
    beat()
    journal.tick(now)
    return restored


def merge(
    table: FlowTable, other: Journal, translations: Translations, now: float, beat: Beat = _unheard
) -> Restored:
    """Take the flows of another worker's journal over into ``table``; ``other`` is only read, and
    ``beat`` called as by ``restore``.
    """
    restored = Restored()
    if other.complete:
        _restore(table, other, translations, now, restored, beat)
    return restored


def rewrite_journal(table: FlowTable, now: float) -> None:
    """Write all flows of ``table`` into its journal, which has begun anew (``Journal.reset``).

    Takes a third of a second for a million of them, in which no packet is handled.
    """
    journal = table.journal
    if journal is None:
        return
    journal.tick(now)
    for flows in table.forward.values():
        for flow in flows.values():
            flow.record = journal.write(flow.translation.identity, flow.forward_key, flow.state)
    journal.complete = True


def _restore(
    table: FlowTable,
    journal: Journal,
    translations: Translations,
    now: float,
    restored: Restored,
    beat: Beat,
) -> None:
    in_place = journal is table.journal
    before = len(table)
    alive = journal.alive
    seen = alive if 0.0 <= alive <= now else now
    over = [seen + seconds <= now for seconds in table.timeouts.by_state]
    flows = 0
    for number, state, identity, content in journal.read():
        flows += 1
        if not flows % BEAT:
            beat()
        protocol, translation = translations.of(state, identity, content)
        flow = None
        if translation is None or not _protocol_of(state):
            restored.unknown += 1
        elif over[state]:
            restored.expired += 1
        else:
            key = content[: 2 * len(translation.vip) + 4]
            flow = Flow(protocol, key, translation.reverse_key(key), translation, state, seen)
            if not _fits(table, flow) or not table.make_room(protocol, now):
                flow = None
        if flow is not None:
            flow.record = number if in_place else 0
            table.enter(flow)
        elif in_place:
            journal.erase(number)
    restored.kept = len(table) - before
    restored.refused = flows - restored.kept - restored.unknown - restored.expired


def _protocol_of(state: int) -> str:
    """The name of the protocol of flows in ``state``; empty where no flow can be in it."""
    return PROTOCOL_OF[state] if state < len(PROTOCOL_OF) else ""


def _fits(table: FlowTable, flow: Flow) -> bool:
    """Whether the keys are those of a flow to the VIP, and no other flow's."""
    return (
        flow.forward_key[len(flow.translation.vip) : -4] == flow.translation.vip
        and flow.forward_key not in table.forward[flow.protocol]
        and flow.reverse_key not in table.reverse[flow.protocol]
    )


def _named(service: VirtualService, translation: Translation) -> bytes:
    """The identity that journals of earlier versions have, for an upgrade loses no flow either."""
    ports = translation.vip_port + translation.backend_port if translation.mapped else b""
    ends = translation.vip + translation.backend.address + ports
    return blake2b(service.name.encode() + b"\0" + ends, digest_size=8).digest()
