"""Leases end when a backend is lost: once, and again when it is lost again."""

from __future__ import annotations

from typing import Any

from paraglider.control.leases import ender


class Log:
    """What was warned of."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        """A line."""
        self.lines.append((event, fields))


def test_each_loss_once() -> None:
    """Not at every look, and not when a backend comes back."""
    marks: set[int] = set()
    ended: list[int] = []
    look = ender(lambda: frozenset(marks), Log(), ended.append)
    for now in (set(), {1}, {1}, {1, 2}, {2}, set(), {1}):
        marks.clear()
        marks.update(now)
        look()
    assert ended == [1, 2, 1]


def test_a_refusal_is_told_and_no_more() -> None:
    """They end by themselves."""
    log = Log()

    def refuse(_mark: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    look = ender(lambda: frozenset({0x52000001}), log, refuse)
    look()
    look()
    ((event, fields),) = log.lines
    assert "leases" in event
    assert fields["mark"] == "0x52000001"
