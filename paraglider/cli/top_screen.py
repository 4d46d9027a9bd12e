"""The screen of `paraglider top`: lines for a given width and height.

Lives here: ``TopView`` (sort order and scroll position), its keys, ``report`` (all lines) and
``screen_lines`` (the lines that fit the screen).
Rules: pure. ``status`` has rates (``rates``); the lines are never wider or more than the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.text import Text

from paraglider.cli.listing import Column, TextTable
from paraglider.cli.rates import Rates, total
from paraglider.cli.tables import (
    checked,
    duration,
    quantity,
    queue,
    share,
    state,
    title,
    up,
)
from paraglider.core.pool import State

Row = Mapping[str, Any]

_RATES: Final = {
    "Conns/s": "conns",
    "InPkt/s": "packets_in",
    "OutPkt/s": "packets_out",
    "InB/s": "bytes_in",
    "OutB/s": "bytes_out",
}
#: from worst to best
_SEVERITY: Final = (State.DOWN, State.DRAIN_DOWN, State.MAINT, State.DRAIN, State.READY)


def _severity(row: Row) -> float:
    """The severity of a backend's state, or the share of a service that is not ready."""
    if "state" in row:
        return len(_SEVERITY) - _SEVERITY.index(State(row["state"]))
    return 1 - row["ready"] / row["backends"] if row["backends"] else 1.0


def _both(rates: Row, *names: str) -> float:
    return sum(rates[name] or 0.0 for name in names)


#: sort keys by name, descending; the file's order has none
SORTS: Final[dict[str, Callable[[Row], float] | None]] = {
    "file": None,
    "flows": lambda row: row["flows"] or 0,
    "conns": lambda row: row["rates"]["conns"] or 0,
    "packets": lambda row: _both(row["rates"], "packets_in", "packets_out"),
    "bytes": lambda row: _both(row["rates"], "bytes_in", "bytes_out"),
    "state": _severity,
}
_SORT_KEYS: Final = {name[0]: name for name in SORTS} | {"o": "file", "f": "flows"}
#: the help line, long and short
_HELP: Final = (
    "q quit   sort: f flows, c conns, p packets, b bytes, s state, o none   r reverse   w workers",
    "q quit  f c p b s o sort  r reverse  w workers",
)


@dataclass(frozen=True, slots=True)
class TopView:
    """Sort order, order of the tables, and the number of lines scrolled."""

    sort: str = "file"
    backwards: bool = False
    workers_first: bool = False
    offset: int = 0


def handle_key(view: TopView, key: str, page: int) -> TopView:
    """``view`` after ``key``; unknown keys are ignored. ``page`` is the lines of a screen."""
    if key in _SORT_KEYS:
        return replace(view, sort=_SORT_KEYS[key], offset=0)
    if key == "r":
        return replace(view, backwards=not view.backwards)
    if key == "w":
        return replace(view, workers_first=not view.workers_first, offset=0)
    steps = {"j": 1, "\x1b[B": 1, "k": -1, "\x1b[A": -1, " ": page, "\x1b[6~": page}
    steps |= {"\x1b[5~": -page, "g": -view.offset, "\x1b[H": -view.offset}
    return replace(view, offset=max(0, view.offset + steps.get(key, 0)))


def report(status: Row, view: TopView, width: int) -> list[Text]:
    """All lines: totals, problems, services with their backends, processes."""
    return [*_head(status, width), *_body(status, view, width)]


def screen_lines(status: Row, view: TopView, width: int, height: int, note: str = "") -> list[Text]:
    """The ``height`` lines of the screen; the last one has the keys, or ``note``, an error."""
    head = _head(status, width)
    body = _body(status, view, width)
    room = max(0, height - len(head) - 1)
    offset = settled(status, view, width, height).offset
    shown = body[offset : offset + room]
    blank = [Text()] * (room - len(shown))
    lines = [*head, *shown, *blank][: height - 1]
    return [*lines, _foot(view, note, width, offset, len(shown), len(body))]


def settled(status: Row, view: TopView, width: int, height: int) -> TopView:
    """``view`` with its scroll position limited to the last line."""
    below = len(_body(status, view, width)) + len(_head(status, width)) + 1 - height
    return replace(view, offset=min(view.offset, max(0, below)))


def _head(status: Row, width: int) -> list[Text]:
    services, backends = status["services"], status["backends"]
    ready = sum(service["ready"] for service in services)
    flows = [service["flows"] for service in services]
    known = [count for count in flows if count is not None]
    sums = total(services)
    lines = [
        Text(
            f"paraglider: {len(services)} services, {ready} of {len(backends)} backends ready, "
            f"{quantity(sum(known) if known else None)} flows, {rate(sums['conns'])} conns/s",
            "bold",
        ),
        Text(
            f"in {rate(sums['packets_in'])} packets/s {rate(sums['bytes_in'])} bytes/s, "
            f"out {rate(sums['packets_out'])} packets/s {rate(sums['bytes_out'])} bytes/s"
        ),
    ]
    if problems := status["health"]["problems"]:
        lines.append(Text("; ".join(problems), "bold red"))
    if status["health"].get("draining"):  # an older daemon does not have it
        lines.append(Text("draining, not to be announced: `paraglider node ready`", "bold yellow"))
    lines.append(Text())
    return [_cut(line, width) for line in lines]


def _foot(view: TopView, note: str, width: int, offset: int, shown: int, there: int) -> Text:
    if note:
        return _cut(Text(note, "bold red"), width)
    where = f"{offset + 1}-{offset + shown} of {there}" if shown < there else ""
    order = f"by {view.sort}{', backwards' if view.backwards else ''}"
    end = f"{order}  {where}".strip()
    room = width - len(end) - 2
    keys = next((keys for keys in _HELP if len(keys) <= room), "q quit")
    return _cut(Text(f"{keys:<{max(room, 0)}}  {end}", "reverse"), width)


def _body(status: Row, view: TopView, width: int) -> list[Text]:
    parts = [_traffic(status, view), _processes(status["workers"])]
    if view.workers_first:
        parts.reverse()
    first, second = (part.texts(width) for part in parts)
    return [*first, Text(), *second]


def _traffic(status: Row, view: TopView) -> TextTable:
    listing = TextTable(
        (
            Column("Service / backend"),
            Column("State"),
            Column("Since", right=True, rank=2),
            Column("Weight", right=True, rank=3),
            Column("Flows", right=True),
            *(Column(name, right=True) for name in _RATES),
            Column("Check", least=7, rank=1),
        )
    )
    for service in _sorted(status["services"], view):
        cells = (quantity(service["flows"]), *_cells(service["rates"]), "")
        listing.add(title(service), "", "", "", *cells, over=4, style="bold", again="  all")
        mine = [row for row in status["backends"] if row["service"] == service["service"]]
        for row in _sorted(mine, view):
            listing.add(
                f"  -> {row['backend']}",
                state(row),
                duration(row["seconds"]),
                str(row["weight"]),
                quantity(row["flows"]),
                *_cells(row["rates"]),
                checked(row["check"]),
            )
    return listing


def _processes(rows: Iterable[Row]) -> TextTable:
    listing = TextTable(
        (
            Column("Process"),
            Column("State"),
            Column("Up", right=True, rank=1),
            Column("Flows", right=True),
            Column("Bound", right=True, rank=2),
            Column("Packet/s", right=True),
            Column("Busy", right=True),
            Column("Queue", right=True),
            Column("Drops", right=True),
        )
    )
    for row in rows:
        listing.add(
            row["name"],
            up(row),
            "-" if row["seconds"] is None else duration(row["seconds"]),
            quantity(row.get("flows")),
            quantity(row.get("bound") or None),
            rate(row["rates"]["packets"]),
            share(row.get("busy")),
            *queue(row),
        )
    return listing


def rate(value: float | None) -> str:
    """A rate per second, with a decimal if it is small; "-" for None."""
    if value is None:
        return "-"
    return f"{value:.1f}" if 0 < value < 9.95 else quantity(round(value))


def _cells(rates: Rates) -> tuple[str, ...]:
    return tuple(rate(rates[name]) for name in _RATES.values())


def _sorted(rows: Iterable[Row], view: TopView) -> list[Row]:
    key = SORTS[view.sort]
    found = list(rows)
    if key is not None:
        found.sort(key=key, reverse=True)  # stable: equal rows keep the file's order
    return found[::-1] if view.backwards else found


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line
