"""The probe measures a real packet path and a real writer; no time is asserted."""

from __future__ import annotations

import pytest

from bench import counters_probe
from bench.counters_probe import Cost, measure


def test_both_ways_are_measured() -> None:
    """There are figures for the packet path with the counters and without, and for a tick."""
    cost = measure(3, slices=2, seconds=0.001)
    assert cost.backends == 3
    assert min(cost.without, cost.counted, cost.tick) > 0


def test_what_is_said_of_a_cost() -> None:
    """The added cost is a share of the packet path, and a tick's cost one of the time of a tick."""
    cost = Cost(10, without=1000.0, counted=1010.0, tick=50_000.0)
    assert cost.percent == pytest.approx(1.0)
    assert cost.most == pytest.approx(0.1)


def test_it_prints_a_line_for_each_number_of_backends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the number of slices that it is given."""
    asked = []

    def measured(backends: int, slices: int, _seconds: float) -> Cost:
        asked.append((backends, slices))
        return Cost(backends, 500.0, 501.0, 20_000.0)

    monkeypatch.setattr(counters_probe, "measure", measured)
    monkeypatch.setattr(counters_probe.sys, "argv", ["counters_probe", "7"])
    counters_probe.main()
    assert asked == [(10, 7), (1000, 7)]
    assert capsys.readouterr().out.splitlines() == [
        (
            "10 backends: 500 ns a packet, 501 ns with counters (+0.20 %); "
            "a tick writes for 20 us (0.04 % of a core)"
        ),
        (
            "1000 backends: 500 ns a packet, 501 ns with counters (+0.20 %); "
            "a tick writes for 20 us (0.04 % of a core)"
        ),
    ]
