"""The number of live flows of each translation and worker, in memory that the workers share.

The worker that writes the tables of the kernel needs the flows of all workers for a strategy that
counts flows, and whether all workers have inserted the entries of their flows. Each worker writes
its own part at its tick.

A worker's successor also learns how many events were lost when its predecessor had counted all
connections, so that it counts none of them again.

Lives here: ``SharedLoads``.
Rules: a worker writes only its own numbers, each of four bytes, in one store.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Final

from paraglider.bpf.layout import TRANSLATIONS
from paraglider.core.translation import Translation

_BYTES: Final = 4 * TRANSLATIONS
_MOST_LOST: Final = (1 << 32) - 1


class SharedLoads:
    """The numbers of ``workers``; created before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, _BYTES * workers + 4 * workers)
        words = memoryview(self._memory).cast("I")
        self._words = words[: TRANSLATIONS * workers]
        self._settled = words[TRANSLATIONS * workers :]
        self._workers = workers

    def reset(self, worker: int) -> None:
        """Clear the loads that a predecessor of ``worker`` has written."""
        self._memory[worker * _BYTES : (worker + 1) * _BYTES] = bytes(_BYTES)
        self.set_busy(worker, busy=True)

    def set_busy(self, worker: int, *, busy: bool) -> None:
        """Set whether flows of ``worker`` may still lack an entry."""
        self._words[worker * TRANSLATIONS] = busy  # no translation has index 0

    @property
    def busy(self) -> bool:
        """Whether flows of a worker may still lack an entry."""
        return any(self._words[::TRANSLATIONS])

    def settle(self, worker: int, lost: int) -> None:
        """``worker`` has counted all connections whose events are among the first ``lost`` ones
        that were lost.
        """
        self._settled[worker] = lost % _MOST_LOST + 1

    def is_settled(self, worker: int, lost: int) -> bool:
        """Whether that holds for a predecessor of ``worker``, since the daemon's start."""
        return self._settled[worker] == lost % _MOST_LOST + 1

    def write(self, worker: int, translations: Iterable[Translation]) -> None:
        """Write the live flows of ``worker`` to each of ``translations``."""
        words, first = self._words, worker * TRANSLATIONS
        for translation in translations:
            flows = translation.backend.flows + translation.backend.opening
            at = first + translation.slot
            if translation.slot and words[at] != flows:
                words[at] = flows

    def total(self, translation: Translation) -> int:
        """The live flows of all workers, as last written."""
        return sum(self._words[translation.slot :: TRANSLATIONS])
