"""The samples of the last quarter of an hour, for the charts of a page that has just been opened.

A ring of SLOTS slots of STEP seconds; a slot has the means of its samples. A series is one service
or backend with a few values per slot, four bytes each.

Rules: pure; time is the sample's own ``at``, seconds since the epoch. Memory is bounded: at most
MOST series, services first; a series is removed with its last slot.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any, Final

STEP: Final = 3
SLOTS: Final = 15 * 60 // STEP
MOST: Final = 512
#: the values of each series
VALUES: Final = ("flows", "flows_per_second", "bytes_in_per_second", "bytes_out_per_second")

Key = tuple[str, ...]  # (), (service,) or (service, backend)


class _Series:
    """The ring of one service or backend, and the sums of the slot that is being filled."""

    def __init__(self) -> None:
        self.rings = {name: array("f", [math.nan]) * SLOTS for name in VALUES}
        self.sums = dict.fromkeys(VALUES, 0.0)
        self.counts = dict.fromkeys(VALUES, 0)
        self.last = 0  # the number of the last slot with a value

    def add(self, row: Mapping[str, Any], slot: int) -> None:
        for name in VALUES:
            value = row.get(name)
            if value is not None:
                self.sums[name] += value
                self.counts[name] += 1
        self.last = slot

    def commit(self, place: int) -> None:
        for name, ring in self.rings.items():
            count = self.counts[name]
            ring[place] = self.sums[name] / count if count else math.nan
            self.sums[name], self.counts[name] = 0.0, 0


class History:
    """The values of samples, by time."""

    def __init__(self) -> None:
        self._series: dict[Key, _Series] = {}
        self._slot: int | None = None  # the number of the slot that is being filled

    def record(self, sample: Mapping[str, Any]) -> None:
        """Add ``sample``; ignored if it is older than the last."""
        slot = int(sample["at"]) // STEP
        if self._slot is None or slot > self._slot + SLOTS or slot < self._slot - SLOTS:
            self._series.clear()  # the first, or the clock was set
            self._slot = slot
        if slot < self._slot:
            return
        while self._slot < slot:
            for series in self._series.values():
                series.commit(self._slot % SLOTS)
            self._slot += 1
        gone = [key for key, one in self._series.items() if one.last < slot - SLOTS]
        for key in gone:
            del self._series[key]
        self._add((), sample["totals"], slot)
        for row in sample["services"]:
            self._add((row["service"],), row, slot)
        for row in sample["backends"]:
            self._add((row["service"], row["backend"]), row, slot)

    def plain(self, service: str | None = None) -> dict[str, Any]:
        """As data for JSON: the totals and services, or the backends of ``service``."""
        depth = 1 if service is None else 2
        chosen = {
            key[-1]: one
            for key, one in self._series.items()
            if len(key) == depth and service in (None, key[0])
        }
        first = 0 if self._slot is None else self._slot - SLOTS + 1
        slots = range(first, self._slot or 0)
        begin = next((i for i, slot in enumerate(slots) if self._has(slot % SLOTS)), len(slots))
        slots = slots[begin:]
        whole = self._series.get(()) if service is None else self._series.get((service,))
        return {
            "step": STEP,
            "at": [slot * STEP for slot in slots],
            "total": _values(whole, slots),
            "series": {name: _values(one, slots) for name, one in chosen.items()},
        }

    def _add(self, key: Key, row: Mapping[str, Any], slot: int) -> None:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MOST:
                return
            series = self._series[key] = _Series()
        series.add(row, slot)

    def _has(self, place: int) -> bool:
        whole = self._series.get(())
        return whole is not None and any(not math.isnan(r[place]) for r in whole.rings.values())


def _values(series: _Series | None, slots: range) -> dict[str, list[float | None]]:
    if series is None:
        return {name: [None] * len(slots) for name in VALUES}
    return {
        name: [None if math.isnan(v := ring[slot % SLOTS]) else round(v, 2) for slot in slots]
        for name, ring in series.rings.items()
    }
