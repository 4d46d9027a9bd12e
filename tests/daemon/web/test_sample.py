"""Tests of ``paraglider.daemon.web.sample``: rates, shares and drains from two answers."""

from __future__ import annotations

from typing import Any

from paraglider.daemon.web.sample import HALF_LIFE, Sampler


def backend(name: str, picked: int | None = 0, **changes: Any) -> dict[str, Any]:
    """A row of a backend of ``web``."""
    return {
        "service": "web",
        "backend": name,
        "state": "ready",
        "weight": 1,
        "flows": 0,
        "conns": picked,
        "packets_in": picked,
        "packets_out": None,
        "bytes_in": None if picked is None else 100 * picked,
        "bytes_out": None,
        **changes,
    }


def status(*backends: dict[str, Any], strategy: str = "wrr", packets: int = 0) -> dict[str, Any]:
    """The status of the supervisor."""
    service = {"service": "web", "strategy": strategy, "drain_timeout": 60, "flows": 1, "conns": 2}
    workers = [{"role": "worker", "name": "worker 0", "packets": packets}, {"name": "api"}]
    return {"at": 1.0, "services": [service], "backends": list(backends), "workers": workers}


def test_rates() -> None:
    """A rate is the difference of two answers per second; the first answer has none."""
    sampler = Sampler()
    first = sampler.sample(status(backend("a", 10), backend("b", 0)), 100.0)
    assert first["backends"][0]["flows_per_second"] is None
    assert first["totals"]["flows_per_second"] is None
    second = sampler.sample(status(backend("a", 30), backend("b", 4), packets=50), 102.0)
    a, b = second["backends"]
    assert (a["flows_per_second"], b["flows_per_second"]) == (10.0, 2.0)
    assert (a["bytes_in_per_second"], a["bytes_out_per_second"]) == (1000.0, None)
    assert second["services"][0]["flows_per_second"] == 12.0
    assert second["totals"]["bytes_in_per_second"] == 1200.0
    assert second["totals"]["conns"] == 2
    assert second["workers"][0]["packets_per_second"] == 25.0
    assert second["workers"][1]["packets_per_second"] is None


def test_a_counter_that_goes_back_has_no_rate() -> None:
    """Nor has one that was unknown before."""
    sampler = Sampler()
    sampler.sample(status(backend("a", 10), backend("b", None)), 1.0)
    a, b = sampler.sample(status(backend("a", 3), backend("b", 7)), 2.0)["backends"]
    assert a["flows_per_second"] is b["flows_per_second"] is None


def test_shares() -> None:
    """The recent share of new flows beside the share by weight of the ready backends; without new
    flows there is none.
    """
    sampler = Sampler()
    rows = [backend("a", 0, weight=3), backend("b", 0), backend("c", 0, state="down", weight=9)]
    a, b, c = sampler.sample(status(*rows), 0.0)["backends"]
    assert (a["share"], b["share"]) == (None, None)
    assert (a["weight_share"], b["weight_share"], c["weight_share"]) == (0.75, 0.25, 0.0)
    rows = [backend("a", 60, weight=3), backend("b", 20), backend("c", 0, state="down", weight=9)]
    a, b, c = sampler.sample(status(*rows), 1.0)["backends"]
    assert (a["share"], b["share"], c["share"]) == (0.75, 0.25, 0.0)
    a, *_ = sampler.sample(status(*rows), 2.0 + 30 * HALF_LIFE)["backends"]
    assert a["share"] is None


def test_round_robin_asks_for_the_same_of_all() -> None:
    """`rr` ignores weights; without ready backends there is no share."""
    sampler = Sampler()
    a, b = sampler.sample(status(backend("a", weight=9), backend("b"), strategy="rr"), 0.0)[
        "backends"
    ]
    assert a["weight_share"] == b["weight_share"] == 0.5
    (a,) = sampler.sample(status(backend("a", weight=0)), 1.0)["backends"]
    assert a["weight_share"] == 0.0


def test_the_progress_of_a_drain() -> None:
    """How many flows are left of those there were, until the backend is back."""
    sampler = Sampler()

    def drain(state: str, flows: int | None) -> Any:
        row = backend("a", state=state, flows=flows)
        return sampler.sample(status(row), 0.0)["backends"][0]["drain"]

    assert drain("ready", 40) is None
    assert drain("drain", 40) == {"left": 40, "most": 40, "done": 0.0, "timeout": 60}
    assert drain("drain", 10) == {"left": 10, "most": 40, "done": 0.75, "timeout": 60}
    assert drain("drain-down", 0)["done"] == 1.0
    assert drain("ready", 5) is None
    assert drain("drain", 5)["most"] == 5
    assert drain("drain", None)["done"] is None
