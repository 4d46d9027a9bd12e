"""The probe drives the real carrier with maps of the kernel; no time is asserted."""

from __future__ import annotations

import pytest

from bench.carrier_probe import Ticks, measure


@pytest.mark.root
def test_flows_pass_through_all_their_lives() -> None:
    """There is a line for each part; the probe itself holds table and maps against each other."""
    lines = list(measure(3000, (1000,)))
    assert [line.partition(":")[0] for line in lines] == [
        *("build", "new flow, 1000 flows", "new flow, 3000 flows"),
        *("ticks of installing, established and compact", "3000 established flows"),
        *("restarted, before the first packet", "restored, and compact again"),
        *("closed", "expired, closed", "expired, compact"),
    ]


def test_what_is_said_of_ticks() -> None:
    """A flow's share, and the longest by CPU and by wall time."""
    ticks = Ticks(spent=2_000_000, longest=1_500_000, longest_wall=7_000_000, count=2)
    assert ticks.line("closed", 1000) == (
        "closed: 2000 ns a flow; 2 ticks, longest 1.50 ms CPU, 7.00 ms wall"
    )
