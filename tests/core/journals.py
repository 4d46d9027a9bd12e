"""Journals, and a process's services and flow table for them: shared by the tests of the core."""

from __future__ import annotations

from collections.abc import Sequence

from packets import V4, V6, Family, packed

from paraglider.core.affinity import Affinity
from paraglider.core.flow import FIRST_STATE, ICMP, ICMP6, TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_states import PROTOCOL_OF
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.pool import Backend, Pool
from paraglider.core.restore import Translations
from paraglider.core.service import VirtualService
from paraglider.core.strategies.rr import RoundRobin
from paraglider.core.translation import Translation

BOOT = bytes(16)
SHORT = FlowTimeouts(syn=4, established=30, closed_rst=6, closed_fin=6, udp=5, icmp=2)
STATES = {
    TCP: tuple(state for state, name in enumerate(PROTOCOL_OF) if name == "tcp"),
    UDP: tuple(state for state, name in enumerate(PROTOCOL_OF) if name == "udp"),
    ICMP: (FIRST_STATE[ICMP],),
}


class World:
    """Services of both families as one process has them; ``backends`` of each."""

    def __init__(
        self,
        backends: int = 3,
        names: Sequence[str] = ("web", "web6"),
        ports: Sequence[int] = (80, 80),
        *,
        keeps: bool = True,
    ) -> None:
        self.affinity = Affinity(5, 100)
        self.services = [
            VirtualService(
                name,
                packed(family.vip),
                (TCP, UDP),
                ((port, port),),
                Pool([Backend(a, packed(a), 8080) for a in family.backends[:backends]]),
                RoundRobin(),
                affinity=self.affinity if keeps and family is V4 else None,
                echo=True,
            )
            for name, family, port in zip(names, (V4, V6), ports, strict=True)
        ]
        self.translations = Translations(self.services)

    def translation(self, family: Family, number: int) -> Translation:
        """The translation to backend ``number``."""
        return list(self.services[family is V6].translations.values())[number]


def memory(records: int = 20) -> bytearray:
    """The bytes of an empty journal whose worker has begun."""
    buffer = bytearray(size_of(records))
    write_header(buffer, records, BOOT)
    Journal(buffer).complete = True
    return buffer


def key(family: Family, client: int) -> bytes:
    """The key of a client's flow; of echo too, whose ports are both its identifier."""
    port = (40000 + client).to_bytes(2, "big")
    return packed(family.client) + packed(family.vip) + port + b"\0\x50"


def opened(
    table: FlowTable, translation: Translation, protocol: int, client: int, now: float
) -> Flow:
    """A new flow."""
    family = V4 if len(translation.vip) == 4 else V6
    if protocol == ICMP and family is V6:
        protocol = ICMP6
    forward = key(family, client)
    return table.open(protocol, forward, translation.reverse_key(forward), translation, now)


def known(table: FlowTable) -> set[tuple[int, bytes, bytes, int, bytes, str]]:
    """Everything that must live on of the flows of a table, which are found by either key."""
    assert {id(f) for each in table.forward.values() for f in each.values()} == {
        id(f) for each in table.reverse.values() for f in each.values()
    }
    return {
        (p, k, f.reverse_key, f.state, f.translation.identity, f.translation.backend.name)
        for p, flows in table.forward.items()
        for k in flows
        for f in [flows[k]]
    }
