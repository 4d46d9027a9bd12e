"""The balancer of the lab: the real set-up and daemon, and what is read of their log."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.errors import PlatformError
from paraglider.lab.balancer import READY, TROUBLE, LabBalancer, start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.scenario import LabOptions, configuration
from paraglider.lab.topology import VIP, Plan, Topology


@pytest.fixture
def built() -> Iterator[Topology]:
    """A network with one backend."""
    with Topology(Plan(backends=1)) as made:
        yield made


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The lab's own configuration for one backend."""
    (tmp_path / "empty").mkdir()
    cores = frozenset(os.sched_getaffinity(0))
    return configuration(LabOptions(backends=1), tmp_path, cores)


@pytest.mark.parametrize(
    ("line", "ready"),
    [
        ("timestamp=1 level=info event=ready workers=2", True),
        ('timestamp=1 level=info event="worker ready" worker=0', False),
        ("timestamp=1 level=info event=starting config=ready.conf", False),
    ],
)
def test_the_daemon_is_ready_when_all_workers_are(line: str, ready: bool) -> None:
    """One worker that is ready is not the daemon that is."""
    assert bool(READY.search(line)) is ready


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ('timestamp=1 level=error event="worker died" worker=0', True),
        ("Traceback (most recent call last):", True),
        ('timestamp=1 level=warning event="no level of error here"', False),
        ("timestamp=1 level=info event=ready", False),
    ],
)
def test_trouble_is_an_error_or_a_traceback(line: str, trouble: bool) -> None:
    """Warnings are none, whatever words are in them."""
    assert bool(TROUBLE.search(line)) is trouble


@pytest.mark.root
def test_set_up_start_stop_undo(built: Topology, tmp_path: Path, text: str) -> None:
    """What was set up is there, the daemon ends well, and the undoing takes the VIP away."""
    balancer = LabBalancer(built.balancer, tmp_path, text)
    balancer.set_up()
    assert VIP[4] in built.balancer.run(["ip", "-o", "address"]).stdout
    pid = balancer.start()
    assert pid == balancer.pid
    assert pid in built.balancer.pids()
    assert balancer.stop(signal.SIGINT) == 0
    balancer.undo()
    assert VIP[4] not in built.balancer.run(["ip", "-o", "address"]).stdout
    assert built.balancer.pids() == []
    assert balancer.trouble() == []
    with pytest.raises(PlatformError, match="does not run"):
        _ = balancer.pid


@pytest.mark.root
def test_a_daemon_that_refuses_is_told(built: Topology, tmp_path: Path) -> None:
    """The error has the exit code and what the daemon said."""
    balancer = LabBalancer(built.balancer, tmp_path, "services: 7\n")
    with pytest.raises(PlatformError, match=r"the daemon ended with exit 1: .*paraglider\.conf:1"):
        balancer.start()


@pytest.mark.root
def test_servers_that_cannot_listen_are_told(built: Topology) -> None:
    """A second server on a taken port is an error with its words."""
    backend: Namespace = built.backends[0]
    start_backend(backend, "one")
    with pytest.raises(PlatformError, match=r"servers of two ended: two: .*in use"):
        start_backend(backend, "two")
