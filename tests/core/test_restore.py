"""Flows restored from a journal: the table has the same flows, and no content raises."""

from __future__ import annotations

import hashlib
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import SHORT, STATES, World, key, known, memory, opened
from packets import V4, V6, Family, packed

from paraglider.core.flow import ICMP, ICMP6, TCP, UDP, Flow
from paraglider.core.flow_states import (
    ESTABLISHED,
    PROTOCOL_OF,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import HEADER, RECORD, Journal
from paraglider.core.pool import Backend, Pool
from paraglider.core.restore import Restored, Translations, merge, restore
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies.rr import RoundRobin

STEP = st.tuples(
    st.sampled_from(["open", "move", "forget", "restart"]),
    st.sampled_from([TCP, UDP, ICMP]),
    st.sampled_from([V4, V6]),
    st.integers(0, 11),
    st.integers(0, 3),
)


@given(st.lists(STEP, max_size=50))
def test_restart_at_any_moment(steps: list[tuple[str, int, Family, int, int]]) -> None:
    """The process dies at random moments: its successor has the same flows with the same backends,
    the same counts, and the same clients with affinity.
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
            client = packed(V4.client)
            assert (world.affinity.find(client, inf) is not None) == (bound == {client})


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
    """Flows are identified by VIP, protocol and port; in journals of earlier versions by the
    service's name.
    """
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


def test_the_port_selects_the_service() -> None:
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


def test_what_was_found_once_is_found_again() -> None:
    """On a service of all ports there are more ports than answers that are kept; another state,
    VIP or identity has an answer of its own.
    """
    backends = [Backend(a, packed(a)) for a in V4.backends]
    service = VirtualService("all", packed(V4.vip), (TCP,), ALL_PORTS, Pool(backends), RoundRobin())
    translations, expected = Translations([service]), service.translations[backends[0]]
    client, unknown = packed(V4.client), ESTABLISHED + len(PROTOCOL_OF)
    for _ in range(2):
        for port in range(5000):
            ends = client + packed(V4.vip) + b"\x9c\x40" + port.to_bytes(2, "big") + bytes(24)
            assert translations.of(ESTABLISHED, expected.identity, ends) == (TCP, expected)
        assert translations.of(STATES[UDP][0], expected.identity, ends) == (UDP, None)
        assert translations.of(unknown, expected.identity, ends)[1] is None
        assert translations.of(ESTABLISHED, bytes(8), ends) == (TCP, None)
        other = client + packed(V4.other_vip) + ends[8:]
        assert translations.of(ESTABLISHED, expected.identity, other) == (TCP, None)


def test_fewer_flows_than_before_are_allowed() -> None:
    """Flows beyond the bound are refused; closed and unanswered ones are evicted for others."""
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


def test_a_journal_of_an_interrupted_restore_is_empty() -> None:
    """A journal of a restore that was interrupted is neither restored nor merged."""
    buffer, _ = filled()
    Journal(buffer).complete = False
    table = FlowTable(SHORT, 20)
    assert merge(table, Journal(buffer), World().translations, 0.0) == Restored()
    assert restore(table, Journal(buffer), World().translations, 0.0) == Restored()
    assert len(table) == 0


@pytest.mark.parametrize("forged", [0.5, -1.0, float("nan"), float("inf")])
def test_a_clock_that_cannot_be(forged: float) -> None:
    """A time in the future, or none, counts as now."""
    buffer, _ = filled()
    Journal(buffer).tick(forged)
    after = taken_from(buffer, World(), 0.25)
    assert {f.seen for f in after.forward[TCP].values()} == {0.25}


@given(st.binary(min_size=5 * RECORD, max_size=5 * RECORD), st.lists(st.booleans(), max_size=5))
def test_garbage(noise: bytes, whole: list[bool]) -> None:
    """With any records, also with a valid identity, nothing raises, and every restored flow is one
    to its VIP.
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
