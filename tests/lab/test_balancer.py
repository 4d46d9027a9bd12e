"""The balancer of the lab: the real set-up and daemon, and their log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from paraglider.errors import PlatformError
from paraglider.host.bpffs import PINS
from paraglider.lab.balancer import READY, TROUBLE, LabBalancer, start_backend, unmount_pins
from paraglider.lab.namespace import Namespace
from paraglider.lab.scenario import LabOptions, configuration
from paraglider.lab.topology import VIP, Plan, Topology, new_prefix


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
    """One ready worker is not enough."""
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
    """Warnings are not trouble, with any words in them."""
    assert bool(TROUBLE.search(line)) is trouble


@pytest.mark.root
def test_set_up_start_stop_undo(built: Topology, tmp_path: Path, text: str) -> None:
    """The VIP is added, the daemon exits with 0, and the undo removes the VIP."""
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
def test_a_daemon_that_exits_is_an_error(built: Topology, tmp_path: Path) -> None:
    """The error has the exit code and the daemon's message."""
    balancer = LabBalancer(built.balancer, tmp_path, "services: 7\n")
    with pytest.raises(PlatformError, match=r"the daemon ended with exit 1: .*paraglider\.conf:1"):
        balancer.start()
    balancer.release_pins()


@pytest.mark.root
def test_servers_that_cannot_listen_are_an_error(built: Topology) -> None:
    """A second server on a taken port is an error with its words."""
    backend: Namespace = built.backends[0]
    start_backend(backend, "one")
    with pytest.raises(PlatformError, match=r"servers of two ended: two: .*in use"):
        start_backend(backend, "two")


#: loads the carrier as a daemon does that is killed later, or removes it
CARRIER = """
import sys
from paraglider.config.model import Config
from paraglider.host import carrier
from paraglider.host.ownership import announce
service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "ports": 80}
service |= {"backends": ["192.0.2.9"], "carrier": "bpf"}
announced = announce()
if sys.argv[1] == "load":
    carrier.load(Config.model_validate({"services": [service]}), 1)
else:
    carrier.remove()
"""


def carrier_of(namespace: Namespace, what: str) -> None:
    """Load or remove the carrier of a daemon in ``namespace``."""
    namespace.run([sys.executable, "-c", CARRIER, what])


@pytest.fixture
def unpinned() -> None:
    """Nothing is mounted: tests before may have left the mount of a daemon, which outlives labs."""
    while PINS.is_mount():
        subprocess.run(["umount", "--lazy", PINS], check=True)


def pinned() -> list[str]:
    """The mounts of pins, and what is in them."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [*(line for line in mounts if str(PINS) in line), *map(str, PINS.glob("*/*"))]


@pytest.mark.root
def test_the_pins_of_a_daemon_outlive_a_lab(
    unpinned: None, built: Topology, text: str, tmp_path: Path
) -> None:
    """It began beside the lab, and is down when the lab ends: its flows go on by its pins. What a
    namespace has left that is gone is removed with the mount.
    """
    lab = LabBalancer(built.balancer, tmp_path, text)
    lab.hold_pins()
    prefix = new_prefix()
    with Namespace(f"{prefix}-one") as one, Namespace(f"{prefix}-two") as two:
        for number, other in enumerate((one, two)):
            other.ip(
                f"link add dev eth{number} type veth peer name peer{number}",
                f"link set eth{number} up",
            )
            carrier_of(other, "load")
        assert PINS.is_mount()
        before = sorted(path.name for path in PINS.iterdir())
        lab.release_pins()
        assert sorted(path.name for path in PINS.iterdir()) == before
        carrier_of(one, "remove")
        unmount_pins()
        assert PINS.is_mount()
    # The interface is gone by then.
    wait_until(lambda: (unmount_pins(), not PINS.is_mount())[1], pinned)
