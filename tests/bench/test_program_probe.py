"""The probe runs the real program on every kind of packet; no time is asserted."""

from __future__ import annotations

import pytest

from bench.program_probe import OBJECT, measure


@pytest.mark.root
def test_every_kind_of_packet_has_a_figure_of_each_object() -> None:
    """The probe itself holds the program's answers against what they should be."""
    lines = list(measure([OBJECT, OBJECT], rounds=1))
    assert len(lines) == 19
    assert all(int(number) > 0 for line in lines for number in line.split()[-2:])
    assert lines[0].startswith("IPv4 TCP, out")
