"""The journal under the workers' hands: removed, damaged or missing is a condition, and mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.config.model import Config
from paraglider.daemon.conditions.journals import JournalMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.processes.child import Child
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.host.journal_files import JournalFiles

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}


class World:
    """A running worker, its files, and the monitor."""

    def __init__(self, directory: Path, forward: str = "nat") -> None:
        service = {**SERVICE, "forward": forward, "backends": ["10.0.0.1"]}
        config = Config.model_validate({"services": [service]})
        self.files = JournalFiles(1, "two", 0, 100, directory)
        self.worker = Child(WorkerSpec(0, 0, config, 1, 1, journals=self.files), pid=77)
        self.conditions = Conditions()
        self.watch = JournalMonitor(self.conditions)

    def begin(self) -> None:
        """Create missing files, as a starting worker does."""
        self.files.open("nat")
        self.watch.on_ready(self.worker)

    def check(self) -> list[Child]:
        """The workers to be replaced."""
        return self.watch.check([self.worker])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """No fault."""
    world = World(tmp_path)
    world.begin()
    assert world.check() == []
    assert list(world.conditions) == []
    return world


def test_a_file_that_is_removed_is_replaced_with_its_worker(world: World) -> None:
    """Until the next worker is ready, and not again while it is starting."""
    world.files.path("nat").unlink()
    assert world.check() == [world.worker]
    assert "its file was removed" in next(iter(world.conditions)).line
    world.worker.dismissed = 5.0
    assert world.check() == []
    world.worker.dismissed = 0.0
    world.begin()
    assert world.check() == []
    assert world.conditions.status == "healthy"


def test_a_damaged_file_is_reported(world: World) -> None:
    """The worker is not replaced: its memory is the only copy of its flows."""
    world.files.path("nat").write_bytes(b"damaged")
    assert world.check() == []
    assert world.conditions.status == "degraded"


def test_where_there_can_be_none(tmp_path: Path) -> None:
    """If /run is full or read-only: a condition, and no worker is replaced repeatedly."""
    world = World(tmp_path)
    world.watch.on_ready(world.worker)
    assert world.check() == []
    assert "there is none" in next(iter(world.conditions)).line
    world.worker.pid = 0
    assert world.check() == []
    assert list(world.conditions) == []


def test_where_the_kernel_has_the_flows_nothing_is_missed(tmp_path: Path) -> None:
    """Offload needs no journal."""
    world = World(tmp_path, "offload")
    world.watch.on_ready(world.worker)
    assert world.check() == []
    assert list(world.conditions) == []
