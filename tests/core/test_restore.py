"""Flows restored from a journal: what the table knew is known again, and nothing else raises."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import V4, V6, Family, packed

from paraglider.core.affinity import Affinity
from paraglider.core.flow import FIRST_STATE, ICMP, ICMP6, TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_states import (
    ESTABLISHED,
    PROTOCOL_OF,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import HEADER, RECORD, Journal, size_of, write_header
from paraglider.core.pool import Backend, Pool
from paraglider.core.restore import Restored, Translations, merge, restore
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
                affinity=self.affinity if family is V4 else None,
                echo=True,
            )
            for name, family, port in zip(names, (V4, V6), ports, strict=True)
        ]
        self.translations = Translations(self.services)

    def translation(self, family: Family, number: int) -> Translation:
        """To backend ``number``."""
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
        for k, f in flows.items()
    }


STEP = st.tuples(
    st.sampled_from(["open", "move", "forget", "restart"]),
    st.sampled_from([TCP, UDP, ICMP]),
    st.sampled_from([V4, V6]),
    st.integers(0, 11),
    st.integers(0, 3),
)


@given(st.lists(STEP, max_size=50))
def test_restart_at_any_moment(steps: list[tuple[str, int, Family, int, int]]) -> None:
    """Flows begin, change and end, and every now and then the process dies: the next one has the
    same flows with the same backends, which count them, and the clients that are bound to them.
    """
    buffer = memory()
    world = World()
    table = FlowTable(SHORT, 20)
    restore(table, Journal(buffer), world.translations, 0.0)
    live: list[Flow] = []
    for what, protocol, family, number, which in steps:
        if what == "open" and len(live) < 20:
            translation = world.translation(family, which % 3)
            forward = key(family, number)
            of_family = ICMP6 if protocol == ICMP and family is V6 else protocol
            if forward not in table.forward[of_family]:
                live.append(opened(table, translation, protocol, number, 1.0))
        elif what == "move" and live:
            flow = live[number % len(live)]
            states = STATES[ICMP if flow.protocol == ICMP6 else flow.protocol]
            table.move(flow, states[which % len(states)], 1.0)
        elif what == "forget" and live:
            table.forget(live.pop(number % len(live)), 1.0)
        elif what == "restart":
            before = known(table)
            world = World()
            table = FlowTable(SHORT, 20)
            restored = restore(table, Journal(buffer), world.translations, 1.0)
            assert restored == Restored(kept=len(before))
            assert known(table) == before
            live = [f for flows in table.forward.values() for f in flows.values()]
            for service in world.services:
                for backend, translation in service.translations.items():
                    count = sum(f.translation is translation for f in live)
                    assert backend.flows + backend.inactive == count
            bound = {f.forward_key[:4] for f in live if f.translation.affinity is not None}
            assert set(world.affinity._held) == bound


def filled(now: float = 0.0) -> tuple[bytearray, FlowTable]:
    """A journal with flows to the first backend, half-open, established, closed; and the table."""
    buffer = memory()
    table = FlowTable(SHORT, 20)
    world = World()
    restore(table, Journal(buffer), world.translations, now)
    for client, state in enumerate((SYN_SENT, SYN_RECEIVED, ESTABLISHED, TIME_WAIT)):
        table.move(opened(table, world.translation(V4, 0), TCP, client, now), state, now)
    return buffer, table


def taken_from(buffer: bytearray, world: World, now: float, bound: int = 20) -> FlowTable:
    """A table that has resumed."""
    table = FlowTable(SHORT, bound)
    restore(table, Journal(buffer), world.translations, now)
    return table


def test_seen_when_the_worker_was_last_alive() -> None:
    """A flow has its whole timeout from then on; those whose timeout is over do not come back."""
    buffer, table = filled()
    table.expire(3.0, 100)
    after = taken_from(buffer, World(), 8.0)
    assert {f.state for f in after.forward[TCP].values()} == {ESTABLISHED, TIME_WAIT}
    assert {f.seen for f in after.forward[TCP].values()} == {3.0}
    assert [after.expire(now, 100) for now in (8.5, 10.0, 35.0)] == [0, 1, 1]
    assert len(after) == 0
    assert len(taken_from(buffer, World(), 36.0)) == 0


def test_what_is_no_longer_configured_is_left_out_for_good() -> None:
    """A backend less, a service on another port: their flows go, are counted, and do not come
    back.
    """
    buffer = memory()
    world = World()
    table = taken_from(buffer, world, 0.0)
    for number, family in ((0, V4), (2, V4), (0, V6)):
        opened(table, world.translation(family, number), TCP, number, 0.0)
    changed = World(backends=2, ports=(80, 81))
    after = FlowTable(SHORT, 20)
    restored = restore(after, Journal(buffer), changed.translations, 1.0)
    assert (restored.kept, restored.left_out) == (1, {"unknown": 2})
    assert len(taken_from(buffer, World(), 1.0)) == 1


def test_a_service_that_was_renamed_keeps_its_flows() -> None:
    """It is known by VIP, protocol and port; and by its name to journals of earlier versions."""
    buffer, world = memory(), World()
    table = taken_from(buffer, world, 0.0)
    for number in range(3):
        opened(table, world.translation(V6, number), TCP, number, 0.0)
    renamed = World(names=("other", "another"))
    assert known(taken_from(buffer, renamed, 1.0)) == known(table)
    named = hashlib.blake2b(digest_size=8)
    one = world.translation(V6, 0)
    named.update(b"web6\0" + one.vip + one.backend.address + one.vip_port + one.backend_port)
    at = bytes(buffer).index(one.identity)
    buffer[at : at + 8] = named.digest()
    assert known(taken_from(buffer, World(), 1.0)) == known(table)
    assert len(taken_from(buffer, renamed, 1.0)) == 2


def test_the_port_tells_the_service() -> None:
    """Two services of one VIP with the same backends: each has the flows to its own port."""
    backends = [Backend(a, packed(a)) for a in V4.backends]
    services = [
        VirtualService(name, packed(V4.vip), (TCP,), ((port, port),), Pool(backends), RoundRobin())
        for name, port in (("web", 80), ("tls", 443))
    ]
    identity = services[0].translations[backends[0]].identity
    assert services[1].translations[backends[0]].identity == identity
    translations = Translations(services)
    ends = packed(V4.client) + packed(V4.vip) + b"\x9c\x40"
    for service, port in zip(services, (80, 443), strict=True):
        _, found = translations.of(ESTABLISHED, identity, ends + port.to_bytes(2, "big"))
        assert found is service.translations[backends[0]]
    assert translations.of(ESTABLISHED, identity, ends + b"\0\x51") == (TCP, None)


def test_fewer_flows_than_before_are_allowed() -> None:
    """Flows beyond the bound are refused; closed and unanswered ones make room for others."""
    buffer, _ = filled()
    after = taken_from(buffer, World(), 1.0, bound=2)
    assert ESTABLISHED in {f.state for f in after.forward[TCP].values()}
    assert len(after) == 2
    assert known(taken_from(buffer, World(), 1.0)) == known(after)


def test_from_the_journals_of_other_workers() -> None:
    """A table takes over the flows of several; one that it has already is refused; theirs stay
    as they are, and its own journal has them from then on.
    """
    world = World()
    first, second, own = memory(), memory(), memory()
    for buffer, clients in ((first, (0, 1)), (second, (1, 2))):
        table = taken_from(buffer, world, 0.0)
        for client in clients:
            opened(table, world.translation(V6, client), TCP, client, 0.0)
    before = bytes(first), bytes(second)
    table = taken_from(own, World(), 1.0)
    counts = [merge(table, Journal(each), World().translations, 1.0) for each in (first, second)]
    assert counts == [Restored(kept=2), Restored(kept=1, refused=1)]
    assert (bytes(first), bytes(second)) == before
    assert known(taken_from(own, World(), 1.0)) == known(table)


def test_a_journal_whose_worker_never_began_is_empty() -> None:
    """What it has of a restore that was cut short is neither restored nor merged."""
    buffer, _ = filled()
    Journal(buffer).complete = False
    table = FlowTable(SHORT, 20)
    assert merge(table, Journal(buffer), World().translations, 0.0) == Restored()
    assert restore(table, Journal(buffer), World().translations, 0.0) == Restored()
    assert len(table) == 0


@pytest.mark.parametrize("forged", [0.5, -1.0, float("nan"), float("inf")])
def test_a_clock_that_cannot_be(forged: float) -> None:
    """A time in the future, or none at all, counts as now."""
    buffer, _ = filled()
    Journal(buffer).tick(forged)
    after = taken_from(buffer, World(), 0.25)
    assert {f.seen for f in after.forward[TCP].values()} == {0.25}


@given(st.binary(min_size=5 * RECORD, max_size=5 * RECORD), st.lists(st.booleans(), max_size=5))
def test_garbage(noise: bytes, whole: list[bool]) -> None:
    """Whatever the records hold, also behind a known identity: nothing raises, and every flow
    that comes of it is one to its VIP.
    """
    world = World()
    buffer = memory(5)
    buffer[HEADER:] = noise
    identities = [r.identity for service in world.services for r in service.translations.values()]
    for number, known_one in enumerate(whole):
        at = HEADER + number * RECORD
        if known_one:
            buffer[at + 4 : at + 12] = identities[number]
            buffer[at + 16 : at + 20] = packed(V4.vip)
    buffer[20] = 5
    table = taken_from(buffer, world, 0.0)
    assert len(table) <= sum(whole)
    for _, forward, *_ in known(table):
        assert forward[len(forward) // 2 - 2 : -4] in (packed(V4.vip), packed(V6.vip))
    opened(table, world.translation(V6, 0), UDP, 1, 0.0) if len(table) < 5 else None
    assert known(taken_from(buffer, World(), 0.0)) == known(table)
