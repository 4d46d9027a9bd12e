"""Restores the flows of a journal into a flow table after a restart or a crash.

Rules: no content of a journal raises. These flows are left out: their service or backend is no
longer configured; they timed out before the restart; another flow has their keys by now; the table
is full (unanswered flows are evicted, as for new flows). The journal does not have the time of a
flow's last packet: the worker's last sign of life takes its place, so that no flow ends early.
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

#: flows restored between two heartbeats; takes some 0.1 s interpreted
BEAT: Final = 8192
#: services and backends of records that ``Translations`` keeps found
_MOST_FOUND: Final = 4096
#: sends a heartbeat
Beat = Callable[[], object]

_NUMBERS: Final = {"tcp": TCP, "udp": UDP}


def ignore() -> None:
    """The default ``beat``: does nothing."""


@dataclass(slots=True)
class Restored:
    """Numbers of flows: restored (``kept``), or left out because their service or backend is no
    longer configured (``unknown``), because they timed out (``expired``), or because another flow
    has their keys or the table is full (``refused``).
    """

    kept: int = 0
    unknown: int = 0
    expired: int = 0
    refused: int = 0

    def __add__(self, other: Restored) -> Restored:
        """The sums of both."""
        return Restored(
            self.kept + other.kept,
            self.unknown + other.unknown,
            self.expired + other.expired,
            self.refused + other.refused,
        )

    @property
    def left_out(self) -> dict[str, int]:
        """The numbers of flows left out by reason, without zeros."""
        reasons = {"unknown": self.unknown, "expired": self.expired, "refused": self.refused}
        return {reason: count for reason, count in reasons.items() if count}


class Translations:
    """Finds the translations of ``services`` by the content of a journal's record."""

    __slots__ = ("_found", "_rewrites", "_services", "_sizes")

    def __init__(self, services: Iterable[VirtualService]) -> None:
        self._services = ServiceMap(tuple(services))
        self._rewrites = {
            (service, identity): translation
            for service in self._services.services
            for translation in service.translations.values()
            for identity in (translation.identity, _named(service, translation))
        }
        self._sizes = {identity: len(r.vip) for (_, identity), r in self._rewrites.items()}
        self._found: dict[tuple[int, bytes, bytes, bytes], tuple[int, Translation | None]] = {}

    def of(self, state: int, identity: bytes, content: bytes) -> tuple[int, Translation | None]:
        """The protocol and the translation of a flow; None if no service has it any more.

        ``content`` begins with the key of the client's packets.
        """
        size = self._sizes.get(identity, 4)
        end = 2 * size + 4
        vip, port = content[size : 2 * size], content[end - 2 : end]
        found = self._found.get((state, identity, vip, port))
        if found is None:
            if len(self._found) >= _MOST_FOUND:  # a service on all ports
                self._found.clear()
            found = self._found[state, identity, vip, port] = self._find(
                _protocol_of(state), identity, vip, port
            )
        return found

    def size_of(self, identity: bytes) -> int:
        """The bytes of the addresses of flows with ``identity``; of unknown ones, 4."""
        return self._sizes.get(identity, 4)

    @property
    def long_identities(self) -> list[bytes]:
        """The identities of flows with addresses of 16 bytes."""
        return [identity for identity, size in self._sizes.items() if size == 16]

    @property
    def with_affinity(self) -> bool:
        """Whether clients of a service keep their backends."""
        return any(service.affinity is not None for service in self._services.services)

    def _find(
        self, name: str, identity: bytes, vip: bytes, port: bytes
    ) -> tuple[int, Translation | None]:
        protocol = _NUMBERS.get(name, ICMP if len(vip) == 4 else ICMP6)
        service = self._services.find(protocol, vip, port)
        return protocol, self._rewrites.get((service, identity)) if name and service else None


def restore(
    table: FlowTable,
    journal: Journal,
    translations: Translations,
    now: float,
    beat: Beat = ignore,
) -> Restored:
    """Set the journal of the empty ``table``, and restore the flows in it.

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
    table: FlowTable, other: Journal, translations: Translations, now: float, beat: Beat = ignore
) -> Restored:
    """Add the flows of another worker's journal to ``table``; ``other`` is not changed. ``beat`` as
    in ``restore``.
    """
    restored = Restored()
    if other.complete:
        _restore(table, other, translations, now, restored, beat)
    return restored


def rewrite_journal(table: FlowTable, now: float) -> None:
    """Write all flows of ``table`` into its journal after ``Journal.reset``.

    Takes a third of a second per million flows, during which no packet is handled.
    """
    journal = table.journal
    if journal is None:
        return
    if table.unread is not None:
        table.unread.finish()
    journal.tick(now)
    for flows in table.forward.values():
        for flow in flows.values():
            flow.record = journal.write(flow.translation.identity, flow.forward_key, flow.state)
    journal.complete = True
    table.damaged = False


def _restore(
    table: FlowTable,
    journal: Journal,
    translations: Translations,
    now: float,
    restored: Restored,
    beat: Beat,
) -> None:
    before = len(table)
    adding = Adding(table, journal, translations, now)
    flows = 0
    for number, state, identity, content in journal.read():
        flows += 1
        if not flows % BEAT:
            beat()
        adding.add(number, state, identity, content)
    restored.unknown, restored.expired = adding.unknown, adding.expired
    restored.kept = len(table) - before
    restored.refused = flows - restored.kept - restored.unknown - restored.expired


class Adding:
    """Adds flows of ``journal`` to ``table``, as of ``now``. ``kept``, ``unknown``, ``expired``:
    see ``Restored``.
    """

    __slots__ = (
        "_in_place",
        "_journal",
        "_now",
        "_over",
        "_seen",
        "_table",
        "_translations",
        "expired",
        "kept",
        "unknown",
    )

    def __init__(
        self, table: FlowTable, journal: Journal, translations: Translations, now: float
    ) -> None:
        alive = journal.alive
        self._seen = alive if 0.0 <= alive <= now else now
        self._over = [self._seen + seconds <= now for seconds in table.timeouts.by_state]
        self._now = now
        self._table = table
        self._journal = journal
        self._in_place = journal is table.journal
        self._translations = translations
        self.kept = self.unknown = self.expired = 0

    def add(self, number: int, state: int, identity: bytes, content: bytes) -> None:
        """Add the flow of a record; that of one that is left out is freed in the table's own."""
        protocol, translation = self._translations.of(state, identity, content)
        if translation is None:
            self.unknown += 1
        elif self._over[state]:
            self.expired += 1
        else:
            key = content[: 2 * len(translation.vip) + 4]
            reverse_key = translation.reverse_key(key)
            flow = Flow(protocol, key, reverse_key, translation, state, self._seen)
            if _fits(self._table, flow) and self._table.make_room(protocol, self._now):
                flow.record = number if self._in_place else 0
                self._table.restore(flow)
                self.kept += 1
                return
        if self._in_place:
            self._journal.erase(number)


def _protocol_of(state: int) -> str:
    """The name of the protocol of flows in ``state``; empty if it is not a state of flows."""
    return PROTOCOL_OF[state] if state < len(PROTOCOL_OF) else ""


def _fits(table: FlowTable, flow: Flow) -> bool:
    """Whether the keys belong to a flow to the VIP and to no other flow."""
    forward, reverse = table.forward[flow.protocol], table.reverse[flow.protocol]
    return (
        flow.forward_key[len(flow.translation.vip) : -4] == flow.translation.vip
        and forward.get(flow.forward_key) is None
        and reverse.get(flow.reverse_key) is None
    )


def _named(service: VirtualService, translation: Translation) -> bytes:
    """The identity in journals of earlier versions, so that an upgrade loses no flow."""
    ports = translation.vip_port + translation.backend_port if translation.mapped else b""
    addresses = translation.vip + translation.backend.address + ports
    return blake2b(service.name.encode() + b"\0" + addresses, digest_size=8).digest()
