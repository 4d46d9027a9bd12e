"""Whether the workers' flow journals are where the next worker finds them (``host.journal_files``).

    removed    /run was emptied: the workers are replaced, one at a time; each restores its flows
               from the file that the supervisor holds open, into a new one
    damaged    truncated, or overwritten: the worker writes it anew (``workers.journals``); if it
               cannot, the flows in it do not survive the worker
    none       /run is full or read-only: the same

Lives here: ``JournalMonitor``.
Rules: looks at descriptors and never waits; findings are conditions. A worker is replaced once for
a file that was removed: where there can be no new one, the condition stays, and the worker too.
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
    """Looks for ``conditions``."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def on_ready(self, child: Child) -> None:
        """``child`` serves, and has its journals open."""
        spec = child.spec
        if isinstance(spec, WorkerSpec) and spec.journals is not None:
            spec.journals.held.renew({table: spec.journals.path(table) for table in _tables(spec)})

    def check(self, children: Iterable[Child]) -> list[Child]:
        """Look at the journals of ``children``; those that are to be replaced."""
        found, replaced = {}, []
        for child in children:
            spec = child.spec
            if not isinstance(spec, WorkerSpec) or spec.journals is None or not child.serves:
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
    """The flow tables of a worker, which are called by their methods."""
    yield from dict.fromkeys(s.forward for s in spec.config.services if s.method.journalled)
