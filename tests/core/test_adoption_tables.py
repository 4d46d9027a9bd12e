"""Which backend has a flow that is not known: by the present table, and by the others after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import SOME, V4, backend, packed, service

from paraglider.core import strategies
from paraglider.core.adoption_tables import KEPT, AdoptionTables
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend, Event, Pool
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies import Context, NewFlow

ADDRESSES = tuple(f"10.0.0.{number}" for number in range(1, 6))
FLOWS = [NewFlow(TCP, number.to_bytes(12, "big"), 0.0) for number in range(200)]


def made(strategy: str = "maglev", **life: object) -> VirtualService:
    """A service of five backends, whose tables are soon made."""
    pool = Pool([backend(address) for address in ADDRESSES], **life)  # type: ignore[arg-type]
    picker = strategies.create(strategy, Context(parameters={"table_size": 1021}))
    return VirtualService("web", packed(V4.vip), (TCP,), ALL_PORTS, pool, picker, adopts=True)


def tables(one: VirtualService) -> AdoptionTables:
    """Its tables."""
    assert one.adoption is not None
    return one.adoption


def choices(one: VirtualService, flow: NewFlow) -> list[Backend]:
    """The backends of a flow, each after those before have refused it."""
    found: tuple[Backend, ...] = ()
    while (backend := tables(one).pick(flow, found)) is not None:
        found += (backend,)
    return list(found)


def picked(one: VirtualService, refused: int = 0) -> list[str | None]:
    """The names of the backends of all flows, after so many have refused them."""
    found = (choices(one, each)[refused : refused + 1] for each in FLOWS)
    return [each[0].name if each else None for each in found]


def chosen(one: VirtualService) -> list[str | None]:
    """The names of the backends of the same flows, were they new."""
    return [one.strategy.pick(each).name for each in FLOWS]


def replaced(one: VirtualService, pool: Pool) -> VirtualService:
    """The service in place of ``one`` after a reload."""
    changes = {"adopts": True, "before": one}
    return VirtualService("web", one.vip, (TCP,), one.ports, pool, one.strategy, **changes)  # type: ignore[arg-type]


def drain(one: VirtualService, number: int, flows: int = 1) -> Backend:
    """Drain a backend that has so many flows here."""
    each = one.pool.backends[number]
    each.flows = flows
    one.pool.apply(each, Event.SET_DRAIN)
    return each


@pytest.mark.parametrize("name", sorted(strategies.KINDS))
def test_only_a_function_of_file_and_packet_adopts(name: str) -> None:
    """maglev and source do; what takes turns or counts flows does not, nor what is told not to."""
    assert (made(name).adoption is not None) == strategies.KINDS[name].hashes
    assert service(V4, strategy=name, adopts=False).adoption is None


@pytest.mark.parametrize("name", ["maglev", "source"])
def test_it_is_the_backend_of_a_new_flow(name: str) -> None:
    """While nothing changes, so that another balancer's choice is found again."""
    one, other = made(name), made(name)
    assert picked(one) == chosen(one) == chosen(other)
    assert picked(one, 1) == [None] * len(FLOWS)


def test_a_draining_backend_counts_while_it_has_flows() -> None:
    """Its flows are found at it, and go to the new table's backend if it refuses them; without
    flows it does not count.
    """
    one = made()
    before = chosen(one)
    draining = drain(one, 0)
    now = chosen(one)
    assert picked(one) == before
    assert all(
        second == new
        for first, second, new in zip(before, picked(one, 1), now, strict=True)
        if first == draining.name
    )
    draining.flows = 0
    tables(one).tick(1.0)
    assert picked(one) == now


def test_strays_do_not_keep_a_drain_from_its_end() -> None:
    """A half-open flow may be one: it does not lead further ones to a draining backend."""
    one = made()
    draining = drain(one, 0)
    draining.opening = 1
    one.tick(1.0)
    draining.flows = 0
    one.tick(2.0)
    assert picked(one) == chosen(one)
    draining.opening = 0
    assert one.pool.drained(draining)


def test_a_draining_backend_may_have_flows_elsewhere_only() -> None:
    """At a standby, for as long as it drains: it is the second choice then."""
    one = made()
    before = chosen(one)
    draining = drain(one, 0, flows=0)
    one.tick(1.0)
    one.tick(2.0 + KEPT)
    first, second = picked(one), picked(one, 1)
    assert first == chosen(one)
    moved = [number for number, each in enumerate(before) if each == draining.name]
    assert moved
    assert {second[number] for number in moved} == {draining.name}
    one.pool.apply(draining, Event.SET_READY)
    one.tick(3.0 + 2 * KEPT)
    one.tick(4.0 + 3 * KEPT)
    assert picked(one, 1) == [None] * len(FLOWS)


@pytest.mark.parametrize(
    ("event", "counts"), [(Event.SET_MAINT, True), (Event.CHECK_FAILED, False)]
)
def test_a_backend_that_keeps_its_flows_counts(event: Event, counts: bool) -> None:
    """In maintenance it keeps them, a failed one loses them."""
    one = made()
    before = chosen(one)
    one.pool.backends[0].flows = 1
    one.pool.apply(one.pool.backends[0], event)
    assert (picked(one) == before) is counts
    assert (picked(one) == chosen(one)) is not counts


@pytest.mark.parametrize(("timeout", "kept"), [(None, KEPT), (30, 30.0)])
def test_the_table_before_is_kept_for_a_while(timeout: int | None, kept: float) -> None:
    """A backend returns: flows that began meanwhile have the backend of the table before it."""
    one = made(drain_timeout=timeout)
    first = one.pool.backends[0]
    one.pool.apply(first, Event.CHECK_FAILED)
    between = chosen(one)
    one.pool.apply(first, Event.CHECK_PASSED)
    moved = [
        (number, was)
        for number, (was, now) in enumerate(zip(between, picked(one), strict=True))
        if was != now
    ]
    assert moved
    for now in (100.0, 100.0 + kept - 1):
        one.tick(now)
        second = picked(one, 1)
        assert [(number, second[number]) for number, _ in moved] == moved
    one.tick(100.0 + kept)
    assert picked(one, 1) == [None] * len(FLOWS)


def test_flows_that_end_are_no_change() -> None:
    """The last flow of a draining backend ends: the table before the last change is kept."""
    one = made()
    draining = drain(one, 0)
    one.pool.apply(one.pool.backends[1], Event.CHECK_FAILED)
    between = chosen(one)
    one.pool.apply(one.pool.backends[1], Event.CHECK_PASSED)
    moved = [number for number, each in enumerate(picked(one)) if each == one.pool.backends[1].name]
    draining.flows = 0
    one.tick(1.0)
    assert moved
    for number in moved:
        assert between[number] in [each.name for each in choices(one, FLOWS[number])]


def test_a_lost_backend_of_the_table_before_has_no_flows() -> None:
    """It is never the second choice."""
    one = made()
    one.pool.apply(one.pool.backends[0], Event.CHECK_FAILED)
    assert one.pool.backends[0].name not in picked(one, 1)


def test_without_a_ready_backend() -> None:
    """There is no backend, or that which drains with its flows."""
    one = made()
    draining = drain(one, 0)
    for each in one.pool.backends[1:]:
        one.pool.apply(each, Event.CHECK_FAILED)
    assert picked(one) == [draining.name] * len(FLOWS)
    draining.flows = 0
    one.tick(1.0)
    assert picked(one) == [None] * len(FLOWS)


def test_a_reload_keeps_the_table_before() -> None:
    """The list of backends has changed in the file: flows that the new list moves are found at the
    backend of the old one.
    """
    one = made()
    before = chosen(one)
    pool = Pool([*one.pool.backends, backend("10.0.0.9")], before=one.pool)
    two = replaced(one, pool)
    moved = [number for number, each in enumerate(picked(two)) if each == "10.0.0.9"]
    assert moved
    second = picked(two, 1)
    assert [second[number] for number in moved] == [before[number] for number in moved]


def test_a_reload_that_changes_nothing_keeps_the_present_one() -> None:
    """It is no change of the table."""
    one = made()
    pool = Pool(one.pool.backends, before=one.pool)
    two = replaced(one, pool)
    assert picked(two) == picked(one)
    assert picked(two, 1) == [None] * len(FLOWS)


EVENTS: list[Callable[[VirtualService, int], object]] = [
    lambda one, n: one.pool.apply(one.pool.backends[n], Event.SET_DRAIN),
    lambda one, n: one.pool.apply(one.pool.backends[n], Event.SET_MAINT),
    lambda one, n: one.pool.apply(one.pool.backends[n], Event.SET_READY),
    lambda one, n: one.pool.apply(one.pool.backends[n], Event.CHECK_FAILED),
    lambda one, n: one.pool.apply(one.pool.backends[n], Event.CHECK_PASSED),
    lambda one, n: one.pool.set_weight(one.pool.backends[n], 0),
    lambda one, n: one.pool.set_weight(one.pool.backends[n], 3),
    lambda one, n: setattr(one.pool.backends[n], "flows", 1 - one.pool.backends[n].flows),
]


@SOME
@given(st.lists(st.tuples(st.sampled_from(range(len(EVENTS))), st.integers(0, 4)), max_size=12))
def test_whatever_happens_no_lost_backend_is_picked(events: list[tuple[int, int]]) -> None:
    """And a service with a ready backend has one for every flow; the choices differ."""
    one = made(drain_timeout=5)
    for second, (event, number) in enumerate(events):
        EVENTS[event](one, number)
        one.tick(float(second))
        for flow in FLOWS[:5]:
            found = choices(one, flow)
            assert len(set(found)) == len(found) < 5
            assert not any(each.lost for each in found)
            assert found or not one.pool.ready


def test_a_table_that_changes_between_two_refusals() -> None:
    """What has refused the flow stays so, though the order of the tables is another by then: a
    standby has no flow of the draining backend at first, and then some.
    """
    one = made()
    before = chosen(one)
    draining = drain(one, 0, flows=0)
    one.tick(1.0)
    now = chosen(one)
    for flow, was, new in zip(FLOWS, before, now, strict=True):
        if was == draining.name:
            first = tables(one).pick(flow)
            assert first is not None
            assert first.name == new
            draining.flows = 1
            one.tick(2.0)
            assert tables(one).pick(flow, (first,)) is draining
            draining.flows = 0
            one.tick(3.0)
