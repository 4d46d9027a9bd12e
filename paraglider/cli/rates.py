"""Computes rates per second from two samples of a daemon's counters.

Rules: pure; ``status`` is the control socket's answer. A counter that decreased was reset (another
daemon) and has no rate until the next sample; an unknown counter has no rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

Row = Mapping[str, Any]
Rates = dict[str, float | None]

#: the counters of a service or backend, and of a process
TRAFFIC: Final = ("conns", "packets_in", "packets_out", "bytes_in", "bytes_out")
WORK: Final = ("packets",)


def rated(before: Row | None, after: Row, seconds: float) -> dict[str, Any]:
    """``after`` with ``rates`` in each row; ``before`` was sampled ``seconds`` earlier."""
    found = dict(after)
    for table, names, key in (
        ("services", TRAFFIC, lambda row: row["service"]),
        ("backends", TRAFFIC, lambda row: (row["service"], row["backend"])),
        ("workers", WORK, lambda row: row["name"]),
    ):
        past = [] if before is None else before[table]
        found[table] = _with_rates(past, after[table], names, key, seconds)
    return found


def total(rows: Iterable[Row]) -> Rates:
    """The sums of the rates of services; None if all are unknown."""
    sums: Rates = dict.fromkeys(TRAFFIC)
    for row in rows:
        for name in TRAFFIC:
            rate = row["rates"][name]
            if rate is not None:
                sums[name] = (sums[name] or 0.0) + rate
    return sums


def _with_rates(
    before: Iterable[Row],
    after: Iterable[Row],
    names: Iterable[str],
    key: Callable[[Row], object],
    seconds: float,
) -> list[dict[str, Any]]:
    known = {key(row): row for row in before}
    return [
        {**row, "rates": {name: _rate(known.get(key(row)), row, name, seconds) for name in names}}
        for row in after
    ]


def _rate(before: Row | None, after: Row, name: str, seconds: float) -> float | None:
    past, present = (None if row is None else row.get(name) for row in (before, after))
    if past is None or present is None or present < past or seconds <= 0:
        return None
    return float(present - past) / seconds
