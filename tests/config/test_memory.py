"""The default number of flows."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.config import memory
from paraglider.config.memory import A_FLOW, LEAST, MOST, SHARE, flows_for_memory, flows_in

GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "workers", "flows"),
    [(GIB // 8, 1, LEAST), (4 * GIB, 2, 760_000), (16 * GIB, 4, 1_520_000), (999 * GIB, 8, MOST)],
)
def test_by_memory_and_workers(size: int, workers: int, flows: int) -> None:
    """All workers together stay within their share of memory, with a minimum."""
    assert flows_in(size, workers) == flows
    assert flows == LEAST or flows * workers * A_FLOW <= size // SHARE


def test_a_control_group_with_less_memory(tmp_path: Path) -> None:
    """Its limit counts; "max" and a missing limit do not."""
    limit = tmp_path / "memory.max"
    whole = memory._memory(limit)
    assert whole > 0
    limit.write_text("max\n")
    assert memory._memory(limit) == whole
    limit.write_text("1000000\n")
    assert memory._memory(limit) == 1_000_000


def test_it_does_not_change() -> None:
    """A table has its size for as long as the daemon runs."""
    assert flows_for_memory() == flows_for_memory() >= LEAST
