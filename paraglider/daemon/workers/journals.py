"""Restores a worker's flows from the journals of its predecessor, and repairs damaged journals.

Rules: a worker serves even if its flows cannot be restored, which is logged. If steering has
changed (other cores, for example), it is unknown which flow reaches which worker, so each worker
restores all flows; those that do not reach it expire. A journal that was truncated or overwritten
while in use is rewritten from the worker's flow table.

Lives here: ``carry_on``, ``Journals``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal
from paraglider.core.restore import Restored, Translations, merge, restore, rewrite_journal
from paraglider.forward.worker_datapath import WorkerDatapath
from paraglider.host.journal_files import JournalFile, JournalFiles

#: seconds between two checks of intact files
INTERVAL: Final = 0.5
#: seconds until rewriting a file is tried again after a failure
PAUSE: Final = 5.0


class Journals:
    """The journals of a worker's flow tables."""

    def __init__(self, logger: Any) -> None:
        self._files: list[tuple[str, FlowTable, JournalFile]] = []
        self._log = logger
        self._next = 0.0
        self._refused = False

    def add(self, name: str, table: FlowTable, file: JournalFile) -> None:
        """``table`` writes into ``file``, which is called ``name`` in log lines."""
        self._files.append((name, table, file))

    def check(self, now: float) -> None:
        """Rewrite the damaged ones; called by the tick."""
        due = now >= self._next
        if not due and (self._refused or not any(file.torn for _, _, file in self._files)):
            return
        self._next = now + INTERVAL
        for name, table, file in self._files:
            if file.damaged:
                self._write(name, table, file, now)

    def _write(self, name: str, table: FlowTable, file: JournalFile, now: float) -> None:
        try:
            file.reset()
        except OSError as error:
            self._next = now + PAUSE
            if not self._refused:
                why = str(error.strerror)
                self._log.warning("journal damaged, cannot be rewritten", file=name, why=why)
            self._refused = True
            return
        self._refused = False
        rewrite_journal(table, now)
        self._log.warning("journal damaged, rewritten", file=name, flows=len(table))


def carry_on(
    path: WorkerDatapath,
    files: JournalFiles,
    logger: Any,
    beat: Callable[[], object] = lambda: None,
) -> Journals:
    """Give every flow table of ``path`` its journal, and restore the flows of the predecessor.

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
        _take_over(path, table, name, opened.journal, files, logger, beat)
        journals.add(str(files.path(name)), table, opened)
    return journals


def _take_over(
    path: WorkerDatapath,
    table: FlowTable,
    name: str,
    journal: Journal,
    files: JournalFiles,
    logger: Any,
    beat: Callable[[], object],
) -> None:
    begin = time.monotonic()
    translations = Translations(path.services)
    restored = [restore(table, journal, translations, begin, beat)]
    if not journal.complete:
        for file, other in files.others(name):
            if isinstance(other, Journal):
                restored.append(merge(table, other, translations, begin, beat))
            else:
                logger.warning("journal not used", file=str(file), why=other)
        journal.complete = True
    found = sum(restored, Restored())
    if found.kept or found.left_out:
        seconds = round(time.monotonic() - begin, 3)
        counts = {"flows": found.kept, **found.left_out}
        logger.info("flows restored", table=name, **counts, seconds=seconds)
