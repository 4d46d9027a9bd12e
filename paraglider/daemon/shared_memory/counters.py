"""A worker's counters, in memory shared with the supervisor: read without a request.

    head   the worker's own numbers, at the places of their names in HEAD
    rows   one for each backend of each service: its identity, then the numbers of ROW

A row is identified by hashes of the names. So no order has to be agreed on, and the successor of a
dead process finds its rows and continues them: while the daemon runs, no counter goes down. When a
backend is removed, its counts are added to the row of its service, and its row is free.

Rules: one writer, in its tick, so that the packet path has no part in it; every number is eight
bytes, written atomically; rows are reassigned under an odd EDITION (a seqlock), and a reader that
sees one reads again. The reader never waits, and gets numbers, whatever a worker writes.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple, Protocol

from paraglider.core.verdict import REASON_NAMES

#: gauges: a successor does not continue them
GAUGES: Final = frozenset(
    ("alive", "busy", "flows", "bound", "carried", "active", "closing", "half_open", "inactive")
)
#: fields of a worker: ``alive`` is when it last wrote, ``cpu`` its CPU time (both monotonic ns),
#: ``busy`` its recent share of a core, in millionths; then, of worker and proxy worker, packets,
#: flows (``carried``: by BPF), connections by outcome, and faults of policies
HEAD: Final = (
    *("alive", "busy", "cpu", "flows", "bound", "carried", "packets", "batches"),
    *("active", "closing", "half_open"),
    *REASON_NAMES,
    *("evicted", "expired", "unwritten", "carrier_refused", "flooded"),
    *("faults", "overflows", "openings_dropped", "overruns", "verdicts_refused"),
    *("conns", "unserved", "exhausted"),
    *("policy_raised", "policy_wrong", "policy_slow", "policy_spared", "policy_benched"),
)
#: fields of a backend; ABSENT means that its forwarding method does not count it
ROW: Final = (
    *("flows", "conns", "packets_out", "bytes_out", "packets_back", "bytes_back"),
    *("refused", "timeouts", "retried", "idle", "resets", "unanswered", "inactive"),
    "adopted",
)
ABSENT: Final = -1

#: most rows; a worker's further backends have no counters
MOST_ROWS: Final = 1 << 16
#: rows written in one tick of a worker
ROWS_A_TICK: Final = 32
#: seconds over which ``busy`` is taken
SPAN: Final = 1.0
#: attempts of a reader to read consistent rows; it does not wait for a writer that died in between
_TRIES: Final = 100

_EDITION, _USED, _HEAD = 0, 1, 2  # places of words
_ROWS: Final = 128
_WIDE: Final = 16  # words of a row: service, backend (0: sums of removed backends), ROW
_HEAD_PLACES: Final = {name: _HEAD + place for place, name in enumerate(HEAD)}
_OFFSETS: Final = {name: offset for offset, name in enumerate(ROW, 2)}


@lru_cache(maxsize=8192)
def identity(*names: str) -> int:
    """A hash of the names, the same in every process; never 0."""
    digest = blake2b("\0".join(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


class Counters:
    """The memory of one worker; made before the process, and kept for its successors."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * (_ROWS + _WIDE * MOST_ROWS))
        self.words = memoryview(self._memory).cast("q")

    def close(self) -> None:
        """Unmap the memory, in a process that does not use it."""
        self.words.release()
        self._memory.close()

    def read(self) -> Sample:
        """Read the present counters."""
        words = self.words
        for _ in range(_TRIES):
            edition = words[_EDITION]
            used = min(max(words[_USED], 0), MOST_ROWS)
            found = words[: _ROWS + _WIDE * used].tolist()
            if edition % 2 == 0 and words[_EDITION] == edition:
                break
        return Sample(found)


class Sample:
    """The counters of a worker, as read. ``head`` has the numbers of HEAD."""

    def __init__(self, words: Sequence[int]) -> None:
        self.head: dict[str, int] = {name: words[at] for name, at in _HEAD_PLACES.items()}
        self._words = words

    @cached_property
    def _rows(self) -> dict[int, dict[int, Sequence[int]]]:
        words = self._words
        found: dict[int, dict[int, Sequence[int]]] = {}
        for at in range(_ROWS, len(words), _WIDE):
            if words[at]:
                found.setdefault(words[at], {})[words[at + 1]] = words[at : at + _WIDE]
        return found

    def sums(self, names: Iterable[str]) -> dict[int, int]:
        """The sum of the numbers ``names`` (of ROW) of each backend for which it is not 0, by the
        ``identity`` of service and backend.
        """
        columns = [self._words[_ROWS + _OFFSETS[name] :: _WIDE] for name in names]
        backends = self._words[_ROWS + 1 :: _WIDE]
        return {
            backend: total
            for backend, *numbers in zip(backends, *columns, strict=True)
            if backend and (total := sum([n for n in numbers if n != ABSENT]))
        }

    def backend(self, service: str, backend: str) -> dict[str, int]:
        """The counters of one backend, by the names in ROW; empty if there is no row."""
        row = self._rows.get(identity(service), {}).get(identity(service, backend))
        return {} if row is None else _known(row)

    def service(self, service: str) -> dict[str, int]:
        """The sums over the backends of ``service``, including removed ones."""
        sums: dict[str, int] = {}
        for row in self._rows.get(identity(service), {}).values():
            for name, value in _known(row).items():
                sums[name] = sums.get(name, 0) + value
        return sums


def _known(row: Sequence[int]) -> dict[str, int]:
    return {name: row[at] for name, at in _OFFSETS.items() if row[at] != ABSENT}


class CounterSource(Protocol):
    """The source of the counters."""

    def figures(self) -> Mapping[str, int]:
        """Numbers of HEAD; others are ignored."""

    def traffic(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """Service, backend, numbers of ROW; every backend once."""


class CounterWriter:
    """Writes the counters of ``source`` into ``counters``, ``rows`` backends per tick."""

    def __init__(self, counters: Counters, source: CounterSource, rows: int = ROWS_A_TICK) -> None:
        self._words = words = counters.words
        self._source = source
        self._at_once = rows
        if words[_EDITION] % 2:  # the predecessor died while writing
            words[_EDITION] += 1
        self._head = _Numbers(words, _HEAD_PLACES)
        self._rows: dict[tuple[str, str], _Row] = {}
        self._heirs: dict[int, int] = {}  # service -> place of the sums of removed backends
        self._unclaimed: dict[tuple[int, int], int] = {}  # rows of the predecessor
        self._free: list[int] = []
        for at in range(_ROWS, _ROWS + _WIDE * words[_USED], _WIDE):
            service, backend = words[at], words[at + 1]
            if backend:
                self._unclaimed[service, backend] = at
            elif service:
                self._heirs[service] = at
            else:
                self._free.append(at)
        self.walks = 0  # number of times that all rows have been written
        self._seen: set[tuple[str, str]] = set()
        self._walk = iter(source.traffic())
        self._since, self._spent = time.monotonic_ns(), time.process_time_ns()

    def tick(self) -> None:
        """Write the head, and the next rows."""
        now, cpu = time.monotonic_ns(), time.process_time_ns()
        if now - self._since >= SPAN * 1e9:
            busy = (cpu - self._spent) * 1_000_000 // (now - self._since)
            self._since, self._spent = now, cpu
            self._head.write({"busy": busy})
        self._head.write(self._source.figures())
        self._head.write({"cpu": cpu, "alive": now})
        some = list(islice(self._walk, self._at_once))
        for service, backend, numbers in some:
            names = service, backend
            self._seen.add(names)
            row = self._rows.get(names) or self._begin(names)
            if row is not None:
                row.numbers.write(numbers)
        if len(some) < self._at_once:
            self._end_walk()

    def _end_walk(self) -> None:
        """All backends have been written: the others have been removed."""
        if self._unclaimed or len(self._seen) < len(self._rows):
            left = {row.place: row.at for n, row in self._rows.items() if n not in self._seen}
            for (service, _), at in (left | self._unclaimed).items():
                self._retire(service, at)
            self._unclaimed.clear()
            self._rows = {n: row for n, row in self._rows.items() if n in self._seen}
            services = {row.place[0] for row in self._rows.values()}
            for service in self._heirs.keys() - services:
                self._give_up(self._heirs.pop(service))
        self.walks += 1
        self._seen.clear()
        self._walk = iter(self._source.traffic())

    def _begin(self, names: tuple[str, str]) -> _Row | None:
        """The row of a backend that has none in this process yet; None if there is no room."""
        place = identity(names[0]), identity(*names)
        at = self._unclaimed.pop(place, None)
        if at is None:
            at = self._claim(*place)
        if at is None:
            return None
        numbers = _Numbers(self._words, {name: at + offset for name, offset in _OFFSETS.items()})
        self._rows[names] = row = _Row(place, at, numbers)
        return row

    def _claim(self, service: int, backend: int) -> int | None:
        """Assign a free row; None if there is no room."""
        words = self._words
        used = words[_USED]
        if not self._free and used >= MOST_ROWS:
            return None
        at = self._free.pop() if self._free else _ROWS + _WIDE * used
        words[_EDITION] += 1
        words[_USED] = max(used, (at - _ROWS) // _WIDE + 1)
        for offset in _OFFSETS.values():
            words[at + offset] = ABSENT
        words[at], words[at + 1] = service, backend
        words[_EDITION] += 1
        return at

    def _retire(self, service: int, at: int) -> None:
        """Add the counts of the row at ``at`` to those of its service."""
        words = self._words
        heir = self._heirs.get(service) or self._claim(service, 0)
        words[_EDITION] += 1
        if heir is not None:
            self._heirs[service] = heir
            for name, offset in _OFFSETS.items():
                if name not in GAUGES and words[at + offset] != ABSENT:
                    words[heir + offset] = max(words[heir + offset], 0) + words[at + offset]
        words[at] = words[at + 1] = 0
        words[_EDITION] += 1
        self._free.append(at)

    def _give_up(self, at: int) -> None:
        """Free the row at ``at``."""
        self._words[at] = 0
        self._free.append(at)


class _Numbers:
    """The words at ``places``; counters continue from the present values, also when the source
    restarts at 0.
    """

    __slots__ = ("_before", "_last", "_places", "_words")

    def __init__(self, words: memoryview[int], places: Mapping[str, int]) -> None:
        self._words = words
        self._places = places
        for name in GAUGES & places.keys():
            words[places[name]] = min(words[places[name]], 0)
        self._before = {name: max(words[at], 0) for name, at in places.items()}
        self._last: dict[str, int] = {}

    def write(self, numbers: Mapping[str, int]) -> None:
        """Write ``numbers``, which started at 0 in this process."""
        for name, value in numbers.items():
            last = self._last.get(name)
            if value == last:
                continue
            if last is not None and value < last and name not in GAUGES:
                self._before[name] += last
            self._last[name] = value
            self._words[self._places[name]] = self._before[name] + value


class _Row(NamedTuple):
    """The row of one backend: its ``identity``, its place, its numbers."""

    place: tuple[int, int]
    at: int
    numbers: _Numbers
