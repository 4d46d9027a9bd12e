"""Live flows by mark, in memory that all processes of one Paraglider share.

Rules: one process writes (``tracker``), the workers read; a count is eight bytes, which the
machine writes at once, so nobody waits for anybody.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping

from paraglider.config.model import Config
from paraglider.rules.marks import backend_marks


class LiveFlows:
    """A count for each of ``marks``; made before the processes that share it."""

    def __init__(self, marks: Iterable[int]) -> None:
        self._slots = {mark: slot for slot, mark in enumerate(sorted(set(marks)))}
        self._memory = mmap.mmap(-1, max(8 * len(self._slots), 8))
        self._counts = memoryview(self._memory).cast("q")

    @property
    def marks(self) -> frozenset[int]:
        """The marks that are counted."""
        return frozenset(self._slots)

    def add(self, mark: int, change: int) -> None:
        """Count ``change`` flows more of ``mark``; one that is not counted is passed over."""
        slot = self._slots.get(mark)
        if slot is not None:
            self._counts[slot] = max(self._counts[slot] + change, 0)

    def replace(self, counts: Mapping[int, int]) -> None:
        """Count anew: every mark that is not in ``counts`` has no flow."""
        for mark, slot in self._slots.items():
            self._counts[slot] = counts.get(mark, 0)

    def read(self) -> dict[int, int]:
        """Every mark's count."""
        counts = self._counts.tolist()
        return {mark: counts[slot] for mark, slot in self._slots.items()}


def wanted(config: Config) -> LiveFlows | None:
    """What ``config`` needs to have counted: the backends of its ``counted`` services, if any."""
    marks = backend_marks(config)
    counted = [mark for s in config.services if s.counted for mark in marks[s.name]]
    return LiveFlows(counted) if counted else None
