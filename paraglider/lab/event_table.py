"""The story of several balancers as a table: a row an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from paraglider.lab.flows import NewConnections

_HEADINGS = (
    "flows\nopen",
    "flows\nbroken",
    "new\nopened",
    "new\nfailed",
    "new\nslowest",
    "router\nknew",
)


@dataclass(frozen=True)
class EventRow:
    """What an event did: to ``flows`` open flows, of which ``broken`` broke; to new connections
    until all flows went on; and how many seconds it took until the router ``knew``.
    """

    event: str
    flows: int
    broken: int
    new: NewConnections
    knew: float

    def summary(self) -> str:
        """One line of text."""
        return (
            f"{self.broken} of {self.flows} flows broken; {self.new.opened} new connections, the"
            f" slowest {self.new.slowest:.2f} s, {self.new.failed} failed; the router knew after"
            f" {self.knew:.2f} s"
        )


def event_table(title: str, rows: Sequence[EventRow]) -> Table:
    """The table of the lab's output, which a terminal of 80 columns has room for."""
    shown = Table(title=title)
    shown.add_column("", no_wrap=True)
    for heading in _HEADINGS:
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.event,
            str(row.flows),
            _bad(row.broken),
            str(row.new.opened),
            _bad(row.new.failed),
            f"{row.new.slowest:.2f} s",
            f"{row.knew:.2f} s",
        )
    return shown


def _bad(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"
