"""A sample: one status of the supervisor, with values computed from two of them.

These are rates, each backend's share of new flows beside the share of its weight, and the progress
of drains. A sample is plain data, sent to browsers as it is.

Rules: pure; ``now`` is monotonic seconds. A counter that decreases (a worker was replaced) has no
rate until the next status. Unknown values are None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from paraglider.core.policy_guard import kind

Row = dict[str, Any]

#: counter → name of its rate per second
RATES: Final = {
    "conns": "flows_per_second",
    "packets_in": "packets_in_per_second",
    "packets_out": "packets_out_per_second",
    "bytes_in": "bytes_in_per_second",
    "bytes_out": "bytes_out_per_second",
}
_WORKER_RATES: Final = {"packets": "packets_per_second"}
#: half-life, in seconds, of a flow in a backend's share
HALF_LIFE: Final = 30.0
#: new flows a second of a service below which its shares are not shown
_IDLE: Final = 0.01
_DRAINING: Final = ("drain", "drain-down")


class Sampler:
    """Makes samples of successive statuses."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._before: dict[tuple[str, ...], Mapping[str, Any]] = {}
        self._lately: dict[tuple[str, str], float] = {}  # new flows a second, decaying
        self._drains: dict[tuple[str, str], Row] = {}

    def sample(self, status: Mapping[str, Any], now: float) -> Row:
        """The sample of ``status``, received at ``now``."""
        passed = None if self._at is None else now - self._at
        seen: dict[tuple[str, ...], Mapping[str, Any]] = {}
        backends = []
        for row in status["backends"]:
            key = (row["service"], row["backend"])
            seen[key] = row
            backends.append({**row, **self._rates(key, row, RATES, passed)})
        workers = []
        for row in status["workers"]:
            number = ("worker", str(row.get("name")))
            seen[number] = row
            workers.append({**row, **self._rates(number, row, _WORKER_RATES, passed)})
        self._at, self._before = now, seen
        self._fade(backends, passed)
        of: dict[str, list[Row]] = {row["service"]: [] for row in status["services"]}
        for row in backends:
            of.setdefault(row["service"], []).append(row)
        services = [self._service(row, of[row["service"]]) for row in status["services"]]
        totals: Row = {name: _sum(services, name) for name in ("flows", "conns", *RATES.values())}
        return {
            **status,
            "services": services,
            "backends": backends,
            "workers": workers,
            "totals": totals,
        }

    def _rates(
        self,
        key: tuple[str, ...],
        row: Mapping[str, Any],
        names: Mapping[str, str],
        passed: float | None,
    ) -> Row:
        before = self._before.get(key, {})
        found: Row = {}
        for counter, name in names.items():
            after, was = row.get(counter), before.get(counter)
            found[name] = None
            if passed and isinstance(after, int) and isinstance(was, int) and after >= was:
                found[name] = round((after - was) / passed, 2)
        return found

    def _fade(self, backends: Iterable[Row], passed: float | None) -> None:
        keep = 1.0 if passed is None else math.pow(0.5, passed / HALF_LIFE)
        lately = {}
        for row in backends:
            key = (row["service"], row["backend"])
            rate = row["flows_per_second"] or 0.0
            lately[key] = self._lately.get(key, 0.0) * keep + rate * (1.0 - keep)
        self._lately = lately

    def _service(self, service: Mapping[str, Any], rows: list[Row]) -> Row:
        """The row of ``service``; those of its backends get their shares and drains."""
        flows = sum(self._lately[row["service"], row["backend"]] for row in rows)
        wanted = [_wanted(row, service["strategy"]) for row in rows]
        whole = sum(wanted)
        for row, want in zip(rows, wanted, strict=True):
            key = (row["service"], row["backend"])
            row["share"] = round(self._lately[key] / flows, 4) if flows > _IDLE else None
            row["weight_share"] = round(want / whole, 4) if whole else 0.0
            row["drain"] = self._drain(key, row, service.get("drain_timeout"))
        return {**service, **{name: _sum(rows, name) for name in RATES.values()}}

    def _drain(self, key: tuple[str, str], row: Row, timeout: float | None) -> Row | None:
        """The progress of a backend's drain, None if it is not draining."""
        if row["state"] not in _DRAINING:
            self._drains.pop(key, None)
            return None
        drain = self._drains.setdefault(key, {"most": 0})
        flows = row.get("flows")
        if flows is None:
            return {"left": None, "most": None, "done": None, "timeout": timeout}
        drain["most"] = most = max(drain["most"], flows)
        done = round(1.0 - flows / most, 3) if most else 1.0
        return {"left": flows, "most": most, "done": done, "timeout": timeout}


def _wanted(row: Mapping[str, Any], strategy: str) -> int:
    """The share of new flows by a backend's weight."""
    if row["state"] != "ready" or not row["weight"]:
        return 0
    return int(row["weight"]) if kind(strategy).weighs else 1


def _sum(rows: Iterable[Mapping[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return round(sum(known), 2) if known else None
