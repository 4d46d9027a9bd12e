"""Checks that the workers' flow journals are in place for their successors
(``host.journal_files``).

    removed    /run was emptied: the workers are replaced, one at a time; each restores its flows
               from the file that the supervisor holds open, into a new one
    damaged    truncated, or overwritten: the worker rewrites it (``workers.journals``); if it
               cannot, the flows in it do not survive the worker
    none       /run is full or read-only: the same

Lives here: ``JournalMonitor``.
Rules: reads descriptors only and never waits; reports conditions. A worker is replaced once for a
removed file: if a new file cannot be made, the condition stays, and the worker too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.processes.child import Child
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.host.journal_files import REMOVED

_REMEDIES: Final = {REMOVED: "the worker is replaced, and makes a new one"}
_REMEDY: Final = "flows would not outlive its worker; make room in /run, then restart the daemon"


class JournalMonitor:
    """Reports to ``conditions``."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def on_ready(self, child: Child) -> None:
        """Called when ``child`` is ready and has its journals open."""
        spec = child.spec
        if isinstance(spec, WorkerSpec) and spec.journals is not None:
            spec.journals.held.renew({table: spec.journals.path(table) for table in _tables(spec)})

    def check(self, children: Iterable[Child]) -> list[Child]:
        """Check the journals of ``children``; returns the processes to be replaced."""
        found, replaced = {}, []
        for child in children:
            spec = child.spec
            if not isinstance(spec, WorkerSpec) or spec.journals is None or not child.up:
                continue
            for table in _tables(spec):
                fault = spec.journals.held.fault(table)
                if fault is None:
                    continue
                text = f"its journal cannot be used, {fault}; {_REMEDIES.get(fault, _REMEDY)}"
                found[f"{spec.name}, {spec.journals.path(table)}"] = Condition("degraded", text)
                if fault == REMOVED and not child.dismissed:
                    replaced.append(child)
        self._conditions.report("journal", found)
        return replaced


def _tables(spec: WorkerSpec) -> Iterator[str]:
    """The names of a worker's flow tables, after their methods."""
    yield from dict.fromkeys(s.forward for s in spec.config.services if s.method.journalled)
