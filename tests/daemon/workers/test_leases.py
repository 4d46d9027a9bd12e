"""Leases end when they must, and a refusal of the kernel's is told."""

from __future__ import annotations

from typing import Any

from paraglider.daemon.workers.leases import ender


class Log:
    """What was warned of."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        """A line."""
        self.lines.append((event, fields))


def test_what_is_due() -> None:
    """All of it, at each look."""
    due = [{1}, set(), {1, 2}]
    ended: list[int] = []
    look = ender(lambda: sorted(due.pop()), Log(), ended.append)
    for _ in range(3):
        look()
    assert ended == [1, 2, 1]


def test_a_refusal_is_told_and_no_more() -> None:
    """They end by themselves."""
    log = Log()

    def refuse(_mark: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    ender(lambda: {0x52000001}, log, refuse)()
    ((event, fields),) = log.lines
    assert "leases" in event
    assert fields["mark"] == "0x52000001"
