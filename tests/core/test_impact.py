"""Tests of ``paraglider.core.impact``: compared with a slow count."""

from __future__ import annotations

import pytest
from packets import V4, V6, backend, packed, service

from paraglider.core import strategies
from paraglider.core.balancer import Balancer
from paraglider.core.explain import explain
from paraglider.core.flow import TCP, UDP
from paraglider.core.impact import SAMPLES, Impact, Moved, Overlap, impact, moved, overlaps, same
from paraglider.core.pool import Backend, Event, Pool
from paraglider.core.service import ALL_PORTS, Ports, ServiceMap, VirtualService
from paraglider.core.strategies import Context, NewFlow
from paraglider.core.strategies.maglev import SIZE

FOUR = [*V4.backends, "10.0.0.4"]


def web(*addresses: str, strategy: str = "maglev", **more: object) -> VirtualService:
    """A service of these backends."""
    return service(V4, backends=[backend(a) for a in addresses], strategy=strategy, **more)  # type: ignore[arg-type]


def seeded(seed: int, *addresses: str) -> VirtualService:
    """A maglev service with its own seed."""
    made = strategies.create("maglev", Context("web", 0, seed))
    pool = Pool([backend(address) for address in addresses])
    return VirtualService("web", packed(V4.vip), (TCP,), ALL_PORTS, pool, made)


@pytest.mark.parametrize("strategy", ["maglev", "source"])
def test_the_same_moves_nothing(strategy: str) -> None:
    """Another order of the same backends moves no flow."""
    before, after = web(*V4.backends, strategy=strategy), web(*V4.backends[::-1], strategy=strategy)
    found = moved(before, after, TCP, 80)
    assert found is not None
    assert found.moved == 0


def test_table_is_compared_entry_by_entry() -> None:
    """A backend that leaves maglev moves its third, and few others; all entries are counted."""
    found = moved(web(*V4.backends), web(*V4.backends[:2]), TCP, 80)
    assert found is not None
    assert (found.of, found.sampled) == (SIZE, False)
    assert 0.333 < found.share < 0.36


def test_source_has_a_table_too() -> None:
    """A fourth backend takes a quarter of the clients, and moves few between the others."""
    found = moved(web(*V4.backends, strategy="source"), web(*FOUR, strategy="source"), TCP, 80)
    assert found is not None
    assert (found.of, found.sampled) == (SIZE, False)
    assert 0.25 <= found.share < 0.27


def test_another_seed_or_strategy_moves_most() -> None:
    """With two independent hashes, all flows move except for chance."""
    for after in (seeded(1, *V4.backends), web(*V4.backends, strategy="source")):
        found = moved(seeded(0, *V4.backends), after, TCP, 80)
        assert found is not None
        assert (found.of, found.sampled) == (SAMPLES, True)
        assert found.share == pytest.approx(2 / 3, abs=0.02)


def test_by_turn_nothing_is_said() -> None:
    """Without a hash on both sides, or without a backend, the result is None."""
    for other in ("rr", "wrr", "weighted"):
        assert moved(web(*V4.backends), web(*V4.backends, strategy=other), TCP, 80) is None
        assert moved(web(*V4.backends, strategy=other), web(*V4.backends), TCP, 80) is None
    empty = web(*V4.backends)
    for each in empty.pool.backends:
        empty.pool.apply(each, Event.SET_MAINT)
    assert moved(web(*V4.backends), empty, TCP, 80) is None


def test_same_backend() -> None:
    """A mapped port that is the service's own is no other place."""
    plain, mapped, other = backend("10.0.0.1"), backend("10.0.0.1", 80), backend("10.0.0.1", 81)
    assert same(plain, mapped, 80)
    assert not same(plain, mapped, 79)
    assert not same(plain, other, 80)
    assert not same(plain, backend("10.0.0.2"), 80)


@pytest.mark.parametrize(
    ("ports", "after", "pieces"),
    [
        (((80, 80),), [("a", ((80, 80),))], [(80, 80, "a")]),
        (((80, 80),), [("a", ((81, 81),))], [(80, 80, None)]),
        (((80, 89),), [("a", ((85, 99),))], [(80, 84, None), (85, 89, "a")]),
        (
            ALL_PORTS,
            [("a", ALL_PORTS), ("b", ((80, 80),))],
            [(1, 79, "a"), (80, 80, "b"), (81, 65535, "a")],
        ),
        (((1, 10), (20, 30)), [("a", ((1, 5), (6, 30)))], [(1, 10, "a"), (20, 30, "a")]),
    ],
)
def test_overlaps(ports: Ports, after: list[tuple[str, Ports]], pieces: list[object]) -> None:
    """Every port of a service is listed once, with its service after the change."""
    others = ServiceMap([service(V4, name=name, ports=spans) for name, spans in after])
    before = service(V4, ports=ports)
    found = list(overlaps(before, ServiceMap([before]), others))
    names = [(p.first, p.last, p.service.name if p.service else None) for p in found]
    assert names == pieces


def test_overlaps_of_every_protocol() -> None:
    """Protocols are listed separately; echo has no ports; other VIPs do not matter."""
    before = service(V4, protocols=(TCP, UDP), echo=True)
    tcp = service(V4, name="b", ports=((80, 80),))
    elsewhere = service(V4, name="c", vip=V4.other_vip, ports=((5, 5),))
    alone = ServiceMap([before])
    found = list(overlaps(before, alone, ServiceMap([tcp, elsewhere])))
    assert [(p.protocol, p.first, p.last, p.service) for p in found] == [
        (TCP, 1, 79, None),
        (TCP, 80, 80, tcp),
        (TCP, 81, 65535, None),
        (UDP, 1, 65535, None),
        (1, 1, 65535, None),
    ]
    assert Overlap(TCP, 80, 80, tcp) in found
    assert all(p.service is None for p in overlaps(before, alone, ServiceMap([service(V6)])))


def test_flows_of_a_narrower_service_are_not_counted() -> None:
    """A service that claims all ports has not those that another has by name."""
    wide, narrow = service(V4, name="wide"), service(V4, name="narrow", ports=((80, 80),))
    both = ServiceMap([wide, narrow])
    assert [(p.first, p.last) for p in overlaps(wide, both, both)] == [(1, 79), (81, 65535)]
    alone = ServiceMap([wide])
    assert [(p.first, p.last) for p in overlaps(wide, both, alone)] == [(1, 79), (81, 65535)]
    assert list(overlaps(narrow, both, alone)) == [Overlap(TCP, 80, 80, wide)]


def _impact(actual: Backend | None, after: VirtualService | None, lives: bool) -> Impact:
    key = packed(V4.client) + packed(V4.vip) + bytes((1, 2, 0, 80))
    flow = NewFlow(TCP, key, 0.0)
    services = ServiceMap([after] if after is not None else [])
    return impact(flow, actual, lives, explain(Balancer(services), flow))


def test_impacts() -> None:
    """Kept, moved, lost and open, each for its reason."""
    one, gone = backend("10.0.0.1"), backend("10.0.0.9")
    both = web("10.0.0.1", "10.0.0.2")
    picked = both.strategy.pick(
        NewFlow(TCP, packed(V4.client) + packed(V4.vip) + bytes((1, 2, 0, 80)), 0)
    )
    other = next(b for b in both.pool.backends if b is not picked)
    assert _impact(picked, both, lives=False) is Impact.KEPT
    assert _impact(other, both, lives=True) is Impact.MOVED
    assert _impact(gone, both, lives=True) is Impact.LOST
    assert _impact(one, None, lives=True) is Impact.LOST
    assert _impact(one, web("10.0.0.1", "10.0.0.2", strategy="rr"), lives=True) is Impact.KEPT
    assert _impact(one, web("10.0.0.1", "10.0.0.2", strategy="rr"), lives=False) is Impact.OPEN
    assert _impact(None, both, lives=False) is Impact.OPEN
    assert _impact(one, web("10.0.0.1", strategy="rr"), lives=False) is Impact.KEPT


def test_drained_backend_loses_only_what_is_new() -> None:
    """A live flow stays on a backend that takes no new flows; a new flow gets another."""
    after = web("10.0.0.1", "10.0.0.2")
    drained = after.pool.backends[0]
    after.pool.apply(drained, Event.SET_DRAIN)
    assert _impact(drained, after, lives=True) is Impact.MOVED
    assert _impact(drained, after, lives=False) is Impact.LOST
    after.pool.apply(after.pool.backends[1], Event.SET_DRAIN)
    assert _impact(None, after, lives=False) is Impact.LOST
    assert _impact(drained, after, lives=True) is Impact.KEPT


def test_share() -> None:
    """The share is relative to all compared flows."""
    assert Moved(1, 4, sampled=False).share == 0.25
