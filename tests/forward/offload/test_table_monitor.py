"""The monitor of the kernel's tables: its findings and log lines, with a fake kernel."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.daemon.stats.kernel_readings import INTERVAL
from paraglider.forward.offload.table_monitor import QUIET, TableMonitor
from paraglider.netfilter.connections import Fill


class Air:
    """Tables, conntrack, a log, and the monitor."""

    def __init__(self, *families: int) -> None:
        self.tables: dict[int, dict[str, int] | None] = {
            family: {"unanswered": 0, "gone": 0} for family in families
        }
        self.fill: Fill | None = Fill(10, 100, 0)
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.now = 1000.0
        self.watch = TableMonitor(
            families,
            self,
            counters=lambda family: self.tables[family],
            full=lambda: self.fill,
        )

    def _say(self, level: str, event: str, details: dict[str, Any]) -> None:
        self.lines.append((level, event, details))

    def info(self, event: str, **details: Any) -> None:
        """A line of the log."""
        self._say("info", event, details)

    def warning(self, event: str, **details: Any) -> None:
        """A line of the log."""
        self._say("warning", event, details)

    def error(self, event: str, **details: Any) -> None:
        """A line of the log."""
        self._say("error", event, details)

    def update(self, seconds: float = INTERVAL) -> list[tuple[str, str, dict[str, Any]]]:
        """The log lines of an update ``seconds`` later."""
        self.lines.clear()
        self.now += seconds
        self.watch.update(self.now)
        return list(self.lines)


def test_without_problems_there_is_no_line() -> None:
    """No line without a problem."""
    air = Air(4, 6)
    assert [air.update() for _ in range(5)] == [[]] * 5


def test_a_table_that_goes_and_comes() -> None:
    """No line here; earlier counts are not reported again."""
    air = Air(4, 6)
    air.tables[6] = {"unanswered": 7, "gone": 0}
    assert air.update() == []
    air.tables[6] = None
    assert air.update() == []
    air.tables[6] = {"unanswered": 0, "gone": 0}
    assert air.update() == []


def test_what_the_kernel_decided_is_counted() -> None:
    """Earlier counts are not reported, new ones at most once a minute."""
    air = Air(4)
    air.tables[4] = {"unanswered": 5, "gone": 1}
    assert air.update() == []
    air.tables[4] = {"unanswered": 8, "gone": 1}
    ((level, said, details),) = air.update()
    assert level == "warning"
    assert "without a worker's answer" in said
    assert details == {"family": 4, "count": 3}
    air.tables[4] = {"unanswered": 9, "gone": 3}
    assert air.update() == []
    lines = air.update(QUIET)
    assert [details["count"] for _, _, details in lines] == [1, 2]
    assert "removed backends" in lines[1][1]
    assert air.update(QUIET) == []


def test_a_full_conntrack() -> None:
    """Drops are logged when they begin and when there is room again, with a remedy."""
    air = Air(4)
    air.fill = Fill(100, 100, 40)
    assert air.update() == []  # before our time
    air.fill = Fill(100, 100, 47)
    ((level, said, details),) = air.update()
    assert level == "error"
    assert "conntrack's table is full" in said
    assert details["dropped"] == 7
    assert "nf_conntrack_max" in details["remedy"]
    air.fill = Fill(100, 100, 50)
    assert air.update() == []
    assert air.update() == []  # still full, nothing dropped just now
    air.fill = Fill(60, 100, 50)
    ((level, said, _),) = air.update()
    assert (level, said) == ("info", "conntrack's table has room again")
    assert air.update() == []


def test_drops_of_another_reason() -> None:
    """The kernel counts also packets that lost a race there; a table with room is not full."""
    air = Air(4)
    air.fill = Fill(1478, 262144, 40)
    assert air.update() == []
    air.fill = Fill(1478, 262144, 47)
    assert air.update() == []
    air.fill = Fill(250_000, 262144, 48)  # some have ended since
    assert len(air.update()) == 1


def test_without_conntrack() -> None:
    """Without the module there is no line."""
    air = Air(4)
    air.fill = None
    assert air.update() == []


def test_no_worker_alive() -> None:
    """One line when the last one dies, and one when the first is back."""
    air = Air(4)
    for alive in (1, 2, 1, 0, 0):
        air.watch.workers(alive)
    assert [(level, said) for level, said, _ in air.lines] == [
        ("error", "no worker alive: new flows of offload services go by kernel hash")
    ]
    air.lines.clear()
    for alive in (1, 2):
        air.watch.workers(alive)
    ((level, said, _),) = air.lines
    assert level == "info"
    assert "alive again" in said


def test_a_reading_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is logged, and the rest is checked."""
    air = Air(4)

    def refuse(_family: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    air.watch._counters = refuse
    air.fill = Fill(100, 100, 1)
    air.update()
    air.fill = Fill(100, 100, 2)
    assert [said for _, said, _ in air.update()][-1].startswith("conntrack's table is full")


def test_what_was_seen_last() -> None:
    """Sums over the families, and conntrack's fill if it is loaded; nothing without offload
    services.
    """
    air = Air(4, 6)
    assert air.watch.kernel == {"unanswered": 0, "gone": 0}
    air.tables = {4: {"unanswered": 2, "gone": 1}, 6: {"unanswered": 3, "gone": 0}}
    air.update()
    fill = {"held": 10, "limit": 100, "dropped": 0}
    assert air.watch.kernel == {"unanswered": 5, "gone": 1, **fill}
    air.fill = None
    air.watch.cover([6])
    air.update()
    assert air.watch.kernel == {"unanswered": 3, "gone": 0}
    air.watch.cover([])
    assert air.watch.kernel is None


def test_what_is_offloaded_changes() -> None:
    """Tables of new families are checked; without offload services none are."""
    air = Air(4, 6)
    air.watch.cover(())
    air.update()
    air.tables[4] = {"unanswered": 1, "gone": 0}
    assert air.update() == []
    air.watch.workers(0)
    assert air.lines == []
    air.watch.cover([6])
    assert air.update() == []
    air.watch.cover([4, 6])
    air.update()
    air.tables[4] = {"unanswered": 2, "gone": 0}
    assert [details["count"] for _, _, details in air.update()] == [1]
