"""A worker's flows, carried on from where the process before it left them.

Rules: a worker serves whatever it finds: what cannot be taken over is one line of the log. Where
steering has changed since (other cores, say), nobody knows which flow reaches which worker, so
each takes over all flows there are; those that never come its way end as idle ones do.
"""

from __future__ import annotations

import time
from typing import Any

from paraglider.core.flow import FlowTable
from paraglider.core.ledger import Ledger
from paraglider.core.takeover import Rewrites, Taken, adopt, resume
from paraglider.forwarding.path import Path
from paraglider.system.ledger import LedgerFiles


def carry_on(path: Path, files: LedgerFiles, logger: Any) -> None:
    """Give every flow table of ``path`` its ledger and the flows of the process before it."""
    for name, table in path.tables.items():
        try:
            opened = files.open(name)
        except OSError as error:
            why = f"{files.path(name)}: {error.strerror}"
            logger.warning("flows will not outlive this worker", table=name, why=why)
            continue
        if opened.fault is not None:
            logger.warning("ledger not used", file=str(files.path(name)), why=opened.fault)
        _take_over(path, table, name, opened.ledger, files, logger)


def _take_over(
    path: Path, table: FlowTable, name: str, ledger: Ledger, files: LedgerFiles, logger: Any
) -> None:
    begin = time.monotonic()
    rewrites = Rewrites(path.services)
    taken = [resume(table, ledger, rewrites, begin)]
    if not ledger.complete:
        for file, other in files.others(name):
            if isinstance(other, Ledger):
                taken.append(adopt(table, other, rewrites, begin))
            else:
                logger.warning("ledger not used", file=str(file), why=other)
        ledger.complete = True
    found = sum(taken, Taken())
    if found.kept or found.left_out:
        seconds = round(time.monotonic() - begin, 3)
        counts = {"flows": found.kept, **found.left_out}
        logger.info("flows taken over", table=name, **counts, seconds=seconds)
