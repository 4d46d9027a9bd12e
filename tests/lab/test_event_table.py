"""The table of several balancers: a row an event."""

from __future__ import annotations

import io

from rich.console import Console

from paraglider.lab.event_table import EventRow, event_table
from paraglider.lab.flows import NewConnections


def printed(*rows: EventRow) -> list[list[str]]:
    """The cells of the table that is printed."""
    output = io.StringIO()
    Console(file=output, width=80).print(event_table("Balancer 2 of 3", rows))
    lines = [line for line in output.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_rows() -> None:
    """Flows and new connections, failed ones among them, and seconds."""
    killed = EventRow("is killed", 120, 0, NewConnections(88, 2, 1.0312), 0.1449)
    back = EventRow("is restarted (upgrade)", 120, 7, NewConnections(40, 0, 0.004), 0.0)
    assert printed(killed, back) == [
        ["is killed", "120", "0", "88", "2", "1.03 s", "0.14 s"],
        ["is restarted (upgrade)", "120", "7", "40", "0", "0.00 s", "0.00 s"],
    ]


def test_one_line() -> None:
    """The same in words."""
    row = EventRow("is drained", 120, 3, NewConnections(80, 1, 0.25), 0.5)
    assert row.summary() == (
        "3 of 120 flows broken; 80 new connections, the slowest 0.25 s, 1 failed; the router knew"
        " after 0.50 s"
    )
