"""Makes Prometheus' text format from plain data and a description of metrics.

Lives here: ``Described``, ``MetricSection``, ``exposed``, and functions that find values in a row.
The metrics are in ``metrics``.
Rules: pure; a value that is None has no sample, a metric without samples is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

#: the content type of the text (Prometheus, "Exposition formats")
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Row = Mapping[str, Any]
#: the values of labels beside the row's own, and a number
Values = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: ``values`` finds its samples in a row, ``labels`` are those beside the row's."""

    name: str
    text: str
    values: Callable[[Row], Values]
    labels: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is a counter."""
        return self.name.endswith("_total")


@dataclass(frozen=True, slots=True)
class MetricSection:
    """The metrics of the rows that ``rows`` finds in a status; ``labels`` are keys of a row."""

    rows: Callable[[Row], Iterable[Row]]
    labels: tuple[str, ...]
    metrics: tuple[Described, ...]


def exposed(sections: Iterable[MetricSection], status: Row) -> bytes:
    """The metrics of ``sections`` for ``status``, as text."""
    return generate_latest(_Status(sections, status))


class _Status(Collector):
    """The metrics of one status."""

    def __init__(self, sections: Iterable[MetricSection], status: Row) -> None:
        self._sections = sections
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a sample."""
        for section in self._sections:
            rows = list(section.rows(self._status))
            for described in section.metrics:
                family = _family(described, (*section.labels, *described.labels))
                for row in rows:
                    own = [str(row.get(label, "")) for label in section.labels]
                    for labels, value in described.values(row):
                        if value is not None:
                            family.add_metric([*own, *labels], value)
                if family.samples:
                    yield family


def _family(
    described: Described, labels: tuple[str, ...]
) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if described.counts else GaugeMetricFamily
    return kind(described.name, described.text, labels=labels)


def plain(*path: str, scale: float = 1) -> Callable[[Row], Values]:
    """The number at ``path`` in a row; 1 and 0 for what is true and false."""

    def values(row: Row) -> Values:
        value = _at(row, path)
        return [((), None if value is None else value * scale)]

    return values


def each(path: tuple[str, ...], names: Mapping[str, str]) -> Callable[[Row], Values]:
    """The numbers under ``path``, one for each of ``names``, with the name as label; 0 for a
    missing one if ``path`` exists.
    """

    def values(row: Row) -> Values:
        found = _at(row, path)
        if not isinstance(found, Mapping):
            return []
        return [((label,), found.get(name, 0)) for name, label in names.items()]

    return values


def count(name: str) -> Callable[[Row], Values]:
    """One of a worker's counters, which omit zeros."""

    def values(row: Row) -> Values:
        return [((), row["counts"].get(name, 0))]

    return values


def _at(row: Row, path: tuple[str, ...]) -> Any:
    found: Any = row
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def since(*path: str) -> Callable[[Row], Values]:
    """The time, since the epoch, of an event that many seconds ago."""

    def values(row: Row) -> Values:
        ago = _at(row, path)
        return [((), None if ago is None else row["now"] - ago)]

    return values
