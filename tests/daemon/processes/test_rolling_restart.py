"""Processes are replaced one at a time."""

from __future__ import annotations

from typing import cast

from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.rolling_restart import RollingRestart
from paraglider.daemon.processes.spec import Spec


class Dismissing:
    """Notes who is dismissed."""

    def __init__(self) -> None:
        self.dismissed: list[int] = []

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""
        self.dismissed.append(child.spec.index)
        child.dismissed = 1.0


def test_one_after_the_other() -> None:
    """The next is restarted when the one before is ready, each once; processes that do not run are
    skipped.
    """
    first, second, gone = (Child(Spec(i), pid=pid) for i, pid in enumerate((11, 12, 0)))
    noted = Dismissing()
    everybody = cast(ProcessManager, noted)
    renewal = RollingRestart()
    renewal.add([first, second, gone])
    renewal.add([second])
    renewal.advance(everybody)
    renewal.advance(everybody)
    assert noted.dismissed == [0]
    first.pid, first.dismissed = 0, 0.0
    renewal.advance(everybody)
    assert noted.dismissed == [0]
    first.pid = 21
    renewal.advance(everybody)
    assert noted.dismissed == [0, 1]
    second.pid, second.dismissed = 22, 0.0
    renewal.advance(everybody)
    assert noted.dismissed == [0, 1]
