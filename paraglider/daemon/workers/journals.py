"""A worker's flows, carried on from where the process before it left them.

Rules: a worker serves whatever it finds: what cannot be restored is one line of the log. Where
steering has changed since (other cores, say), nobody knows which flow reaches which worker, so
each takes over all flows there are; those that never come its way end as idle ones do.
A journal that somebody cuts or writes over while the worker has it is written anew from the flows
that the worker knows.

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

#: seconds between two looks at files that nobody has missed a page of
INTERVAL: Final = 0.5
#: seconds until a file that could not be written anew is tried again
PAUSE: Final = 5.0


class Journals:
    """The journals of a worker's flow tables at work."""

    def __init__(self, logger: Any) -> None:
        self._files: list[tuple[str, FlowTable, JournalFile]] = []
        self._log = logger
        self._next = 0.0
        self._refused = False

    def add(self, name: str, table: FlowTable, file: JournalFile) -> None:
        """``table`` writes into ``file``, which the log calls ``name``."""
        self._files.append((name, table, file))

    def look(self, now: float) -> None:
        """Write those anew that are not what they were; called by the tick."""
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
                self._log.warning("journal damaged, cannot be written anew", file=name, why=why)
            self._refused = True
            return
        self._refused = False
        rewrite_journal(table, now)
        self._log.warning("journal damaged, written anew", file=name, flows=len(table))


def carry_on(
    path: WorkerDatapath,
    files: JournalFiles,
    logger: Any,
    beat: Callable[[], object] = lambda: None,
) -> Journals:
    """Give every flow table of ``path`` its journal and the flows of the process before it.

    ``beat`` is called all the while.
    """
    journals = Journals(logger)
    for name, table in path.tables.items():
        try:
            opened = files.open(name)
        except OSError as error:
            why = f"{files.path(name)}: {error.strerror}"
            logger.warning("flows will not outlive this worker", table=name, why=why)
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
