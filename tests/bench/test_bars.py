"""Bars are met or not, and unknown where nothing was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import bars
from bench.bars import Bar, carrier_bars, core_bars, ratio_bars
from bench.peers import PEERS
from bench.results import METRICS, PeerResult, Results


def find(found: list[Bar], row: str, column: str) -> Bar:
    """The one bar at this place."""
    (bar,) = [bar for bar in found if (bar.row, bar.column) == (row, column)]
    return bar


@pytest.mark.parametrize(
    ("metric", "ratio", "met"),
    [
        ("keepalive", 0.61, True),
        ("keepalive", 0.59, False),
        ("p50", 1.4, True),
        ("p50", 1.6, False),
    ],
)
def test_ratio_bars(
    results: Results,
    set_ratio: Callable[[str, str, float], None],
    metric: str,
    ratio: float,
    met: bool,
) -> None:
    """More is better, except for latency."""
    set_ratio("nat-netlink", metric, ratio)
    bar = find(ratio_bars(results), "nat-netlink to dnat", METRICS[metric].title)
    assert bar.figure == pytest.approx(ratio)
    assert bar.met is met


def test_offload_is_to_be_ahead_of_the_proxies(
    results: Results, set_ratio: Callable[[str, str, float], None]
) -> None:
    """With 0.8 of DNAT it is ahead of a proxy with 0.7."""
    set_ratio("offload", "bulk_up", 0.8)
    assert find(ratio_bars(results), "offload to haproxy", "bulk up").met is True
    assert find(ratio_bars(results), "offload to nginx", "bulk up").met is None


def test_the_proxy_is_compared_with_nginx(results: Results) -> None:
    """On connections and bulk; without a figure of either there is no verdict."""
    for metric in ("connections", "bulk_down", "bulk_up"):
        column = METRICS[metric].title
        (bar,) = [b for b in ratio_bars(results) if (b.row, b.column) == ("proxy to nginx", column)]
        assert (bar.limit, bar.at_most, bar.met) == (0.5, False, None)


@pytest.mark.parametrize(("rate", "met"), [(9900.0, True), (9700.0, False)])
def test_what_adoption_costs(results: Results, rate: float, met: bool) -> None:
    """It is compared with the same row without it, in a run that has both."""
    before = ratio_bars(results)
    for name, figure in (("nat-maglev", rate), ("nat-maglev-never", 10_000.0)):
        results.peers.append(PeerResult(name, "nat", rounds=[{"connections": figure}]))
    found = ratio_bars(results)
    assert found[: len(before)] == before
    assert find(found, "nat-maglev to nat-maglev-never", "connections/s").met is met
    assert find(found, "nat-maglev to nat-maglev-never", "keepalive requests/s").met is None


@pytest.mark.parametrize(("ratio", "met"), [(0.96, True), (0.94, False)])
def test_what_bpf_carries(results: Results, ratio: float, met: bool) -> None:
    """CPU a unit and rates have a bar each, and the proxies are to be behind on every column."""
    assert carrier_bars(results) == []
    reference = results.peers[0].median("us_connection")
    assert reference is not None
    sample = {"us_connection": reference / ratio, "connections": 9000.0, "p50": 90.0}
    results.peers.append(PeerResult("nat-bpf", "nat", rounds=[sample]))
    found = carrier_bars(results)
    cost = find(found, "nat-bpf, CPU a unit", "connections/s")
    assert cost.figure == pytest.approx(ratio)
    assert cost.met is met
    assert find(found, "nat-bpf, rates", "connections/s").met is False
    assert find(found, "nat-bpf, rates", "p50 latency").met is True
    assert find(found, "nat-bpf, rates", "bulk down").met is None
    assert find(found, "nat-bpf to haproxy", "connections/s").met is True


def test_core_bars_take_the_worst(results: Results) -> None:
    """Memory, growth and pause are those of the worst strategy that was measured."""
    found = core_bars(results)
    assert find(found, "compiled", bars.BYTES).figure == 270
    assert find(found, "compiled", bars.PAUSE).met is True
    results.core[0].expire_pause_ms = 5.1
    assert find(core_bars(results), "compiled", bars.PAUSE).met is False
    assert find(found, "interpreted", bars.BYTES).met is None


def test_bars_name_peers_that_are_there() -> None:
    """No bar waits for a peer whose name has changed."""
    named = {*bars.RATIOS, *bars.AHEAD_OF, *bars.MORE_THAN, *bars.MORE_THAN.values()}
    for beside in (bars.BESIDE, bars.ADOPTING):
        named |= {*beside, *(other for other, _ in beside.values())}
    named |= {other for others in bars.AHEAD_OF.values() for other in others}
    assert named <= set(PEERS)
