"""Fixtures of the bench tests: invented results of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.results import CoreResult, CoreSize, PeerResult, Results, Sample


def sample(speed: float) -> Sample:
    """A sample with ``speed`` times the reference's figures."""
    return {
        "connections": 10_000 * speed,
        "keepalive": 40_000 * speed,
        "bulk_down": 16 * speed,
        "bulk_up": 12 * speed,
        "p50": 100 / speed,
        "p99": 200 / speed,
        "udp": 90_000 * speed,
        "us_connection": 150 / speed,
        "us_request": 45 / speed,
        "us_mb_down": 600 / speed,
        "us_mb_up": 550 / speed,
        "us_datagram": 12.5 / speed,
    }


@pytest.fixture
def results() -> Results:
    """Three rounds of DNAT and of a nat half as fast; offload is missing."""
    return Results(
        date="2030-01-02 03:04 UTC",
        quick=False,
        host={
            "kernel": "7.0",
            "cpus": "2",
            "cpu": "Abacus",
            "memory": "4.0 GiB",
            "python": "3.11.2",
        },
        versions={"Paraglider": "0.1.0 (abc)", "HAProxy": "2.6"},
        seconds={"connections": 5, "bulk": 4},
        peers=[
            PeerResult("dnat", "kernel DNAT", rounds=[sample(1), sample(1.1), sample(0.2)]),
            PeerResult("haproxy", "HAProxy", cannot={"udp": "no UDP"}, rounds=[sample(0.7)]),
            PeerResult("nat-netlink", "nat", rounds=[sample(0.5), sample(0.7), sample(0.6)]),
            PeerResult("offload", "offload", missing="not in this version"),
        ],
        core=[
            CoreResult(
                "compiled",
                "rr",
                sizes=[
                    CoreSize(10_000, 800.0, 250.0, 0.5),
                    CoreSize(100_000, 900.0, 260.0, 2.0),
                    CoreSize(1_000_000, 1000.0, 270.0, 30.0),
                ],
                expire_pause_ms=4.5,
            ),
            CoreResult("compiled", "maglev", missing="not in this version"),
        ],
    )


@pytest.fixture
def set_ratio(results: Results) -> Callable[[str, str, float], None]:
    """A function that makes one round of a peer, with one metric at a ratio to DNAT."""

    def change(peer: str, metric: str, ratio: float) -> None:
        reference = results.figure("dnat", metric)
        assert reference is not None
        found = results.peer(peer)
        assert found is not None
        found.rounds = [{metric: reference * ratio}]

    return change
