"""Everything is assessed once in an interval; services and processes also when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.conditions.assessing import Assessing
from paraglider.daemon.conditions.assessor import INTERVAL
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.conditions.unanswered import A_BACKEND
from paraglider.daemon.conditions.unanswered import INTERVAL as COMPARED
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.store.store import Store
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.host.journal_files import JournalFiles

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}
CONFIG = Config.model_validate({"services": [{**SERVICE, "backends": ["10.0.0.1"]}]})


class World:
    """A store with one backend, and a worker that serves."""

    def __init__(self, directory: Path) -> None:
        self.files = JournalFiles(1, "two", 0, 100, directory)
        spec = WorkerSpec(0, 0, CONFIG, 1, 1, journals=self.files, counters=Counters())
        self.worker = Child(spec, pid=77)
        self.replaced: list[Child] = []
        self.store, self.conditions, self.faults = Store(CONFIG, 0.0), Conditions(), Faults()
        self.assessing = Assessing(
            *(self.store, self.conditions, KernelMonitor(), self), self.faults
        )
        self.files.open("nat")
        self.assessing.on_ready(self.worker)

    def active(self) -> list[Child]:
        """See ``AssessedProcesses``."""
        return [self.worker]

    def replace(self, children: Iterable[Child]) -> None:
        """See ``AssessedProcesses``."""
        self.replaced += children

    def found(self) -> set[str]:
        """The objects of all conditions."""
        return {each.object for each in self.conditions}


def test_all_is_assessed_in_an_interval(tmp_path: Path) -> None:
    """Also internal errors; a worker without its journal is replaced."""
    world = World(tmp_path)
    assert world.assessing.run(100.0) == INTERVAL
    assert world.found() == set()
    (record,) = world.store.pools.of("web")
    world.store.move(record, Event.CHECK_FAILED, "a test", 100.0)
    world.files.path("nat").unlink()
    assert world.assessing.run(100.5) == INTERVAL / 2
    assert world.found() == set()
    world.assessing.run(101.0)
    assert {"service web"} < world.found()
    assert world.replaced == [world.worker]


def test_services_and_processes_are_assessed_at_once(tmp_path: Path) -> None:
    """When somebody wants to know."""
    world = World(tmp_path)
    world.worker.trouble, world.worker.pid = "no memory", 0
    world.assessing.assess()
    assert world.found() == {world.worker.spec.name}
    assert world.assessing.compare_openings(100.0) == pytest.approx(COMPARED + A_BACKEND)
