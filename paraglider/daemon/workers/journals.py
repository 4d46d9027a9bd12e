"""Restores a worker's flows from the journals of its predecessor, and repairs damaged journals.

Rules: a worker serves even if its flows cannot be restored, which is logged. Many flows are
restored while it serves (``core.unread``), some with each tick. If the steering has changed (other
cores, for example), a worker restores its share of the flows of all journals (``core.resteering``).
A journal that was truncated or overwritten while in use is rewritten from the worker's flow table.
Lives here: ``restore_flows``, ``Journals``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from paraglider.core.flow_table import FlowTable
from paraglider.core.hmark import WorkerShare
from paraglider.core.journal import Journal
from paraglider.core.resteering import take_over
from paraglider.core.restore import Restored, Translations, merge, restore, rewrite_journal
from paraglider.core.unread import Unread
from paraglider.core.unread import begin as unread_flows
from paraglider.forward.worker_datapath import WorkerDatapath
from paraglider.host.journal_files import JournalFile, JournalFiles

#: seconds between two checks of intact files
INTERVAL: Final = 0.5
#: flows that are restored in a tick. In the same tick as many may become compact: all of that takes
#: about 5 ms where it is compiled
RESTORED_A_TICK: Final = 400
#: seconds until rewriting a file is tried again after a failure
PAUSE: Final = 5.0


class Journals:
    """The journals of a worker's flow tables."""

    def __init__(self, logger: Any) -> None:
        self._files: list[tuple[str, FlowTable, JournalFile]] = []
        self._unread: list[tuple[str, Unread, float]] = []
        self._log = logger
        self._next = 0.0
        self._refused = False

    def add(self, name: str, table: FlowTable, file: JournalFile) -> None:
        """``table`` writes into ``file``, which is called ``name`` in log lines."""
        self._files.append((name, table, file))

    def continue_restoring(self, name: str, unread: Unread, begin: float) -> None:
        """Restore ``unread``, the flows of the table ``name``, with ``restore_some``."""
        self._unread.append((name, unread, begin))

    def restore_some(self, now: float) -> None:
        """Restore some of the flows that are left; called by the tick."""
        if self._unread:
            name, unread, begin = self._unread[0]
            unread.step(RESTORED_A_TICK)
            if not unread.left:
                del self._unread[0]
                _report(self._log, name, unread.restored, now - begin)

    def check(self, now: float) -> None:
        """Rewrite the damaged ones; called by the tick."""
        if now < self._next and (self._refused or not any(f.incomplete for _, _, f in self._files)):
            return
        self._next = now + INTERVAL
        for name, table, file in self._files:
            if table.unread is None and file.damaged:  # else what can still be read comes first
                table.damaged = True  # compact flows have their keys in the journal only
                if any(compact.step(RESTORED_A_TICK) for compact in table.compact):
                    self._next = now
                else:
                    self._write(name, table, file, now)

    def _write(self, name: str, table: FlowTable, file: JournalFile, now: float) -> None:
        try:
            file.reset()
        except OSError as error:
            self._next = now + PAUSE
            if not self._refused:
                self._log.warning(
                    "journal damaged, cannot be rewritten", file=name, why=error.strerror
                )
            self._refused = True
            return
        self._refused = False
        rewrite_journal(table, now)
        self._log.warning("journal damaged, rewritten", file=name, flows=len(table))


def restore_flows(
    path: WorkerDatapath,
    files: JournalFiles,
    share_of: Callable[[str], WorkerShare],
    logger: Any,
    beat: Callable[[], object] = lambda: None,
) -> Journals:
    """Give every flow table of ``path`` its journal, and restore the flows of the predecessor.

    ``share_of`` returns the flows of a table, by its name, that are steered to this worker.
    ``beat`` is called throughout, as sign of life.
    """
    journals = Journals(logger)
    for name, table in path.tables.items():
        try:
            opened = files.open(name)
        except OSError as error:
            why = f"{files.path(name)}: {error.strerror}"
            logger.warning("flows will not survive this worker", table=name, why=why)
            continue
        if opened.fault is not None:
            logger.warning("journal not used", file=str(files.path(name)), why=opened.fault)
        begin = time.monotonic()
        journal, translations = opened.journal, Translations(path.services)
        restored = Restored()
        if not journal.complete:
            others = partial(files.readable, name, partial(logger.warning, "journal not used"))
            restored = _take_over(table, journal, others, translations, share_of(name), beat)
        unread = None if len(table) else unread_flows(table, journal, translations, begin, beat)
        if unread is not None:
            journals.continue_restoring(name, unread, begin)
        else:
            if not len(table):
                restored += restore(table, journal, translations, begin, beat)
            _report(logger, name, restored, time.monotonic() - begin)
        journals.add(str(files.path(name)), table, opened)
    return journals


def _take_over(
    table: FlowTable,
    journal: Journal,
    others: Callable[[], Iterator[Journal]],
    translations: Translations,
    share: WorkerShare,
    beat: Callable[[], object],
) -> Restored:
    """Complete the worker's own ``journal`` by the flows of its ``share`` in the journals
    ``others``. Without memory for that, add the flows of all of them to ``table``.
    """
    restored = Restored()
    refused = take_over(journal, others(), translations, share, beat)
    if refused is not None:
        restored.refused = refused
    else:
        now = time.monotonic()
        restore(table, journal, translations, now, beat)  # none: the journal is empty
        for other in others():
            restored += merge(table, other, translations, now, beat)
    journal.complete = True
    return restored


def _report(logger: Any, table: str, found: Restored, seconds: float) -> None:
    if found.kept or found.left_out:
        counts = {"flows": found.kept, **found.left_out}
        logger.info("flows restored", table=table, **counts, seconds=round(seconds, 3))
