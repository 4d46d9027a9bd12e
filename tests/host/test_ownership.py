"""The owner of a namespace, from the state file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from paraglider.errors import OperatorError
from paraglider.host.changes.links import AddressChange
from paraglider.host.ownership import (
    SET_UP,
    STARTED,
    CarrierClaim,
    announce,
    daemons,
    netns_cookie,
    orphans,
    owner_of,
    refuse_beside_daemon,
    state_path,
    stored,
)
from paraglider.host.state import StateFile
from paraglider.lab.namespace import Namespace

CHANGES = [AddressChange(4, "eth0", "192.168.0.11/24")]


@pytest.mark.parametrize("owner", [SET_UP, STARTED])
def test_the_owner_is_the_program_that_stored(tmp_path: Path, owner: str) -> None:
    """As long as changes are stored."""
    path = state_path(tmp_path, 1)
    assert owner_of(path) is None
    StateFile(tmp_path, 1, owner).store(CHANGES)
    assert owner_of(path) == owner
    StateFile(tmp_path, 1, owner).store([])
    assert owner_of(path) is None


def test_a_file_that_names_none_is_of_the_set_up(tmp_path: Path) -> None:
    """Before `start` existed, no other command stored changes."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    content = json.loads(state.path.read_text())
    del content["owner"]
    state.path.write_text(json.dumps(content))
    assert owner_of(state.path) == SET_UP


@pytest.mark.parametrize(
    ("change", "words"),
    [({"owner": "somebody"}, "damaged"), ({"owner": []}, "damaged"), ({"version": 0}, "version")],
)
def test_a_file_that_is_none_of_ours(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """An invalid file is refused, not interpreted."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    state.path.write_text(json.dumps({**json.loads(state.path.read_text()), **change}))
    with pytest.raises(OperatorError, match=words):
        stored(state.path)


def test_an_earlier_boot_has_no_owner(tmp_path: Path) -> None:
    """Its changes are gone."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    content = {**json.loads(state.path.read_text()), "boot": "another"}
    state.path.write_text(json.dumps(content))
    assert owner_of(state.path) is None


def test_a_namespace_has_one_number() -> None:
    """The same at every question."""
    assert netns_cookie() == netns_cookie()


def test_asking_costs_the_daemon_no_memory() -> None:
    """Modules of the set-up are not imported for it."""
    script = (
        "import sys, paraglider.host.ownership; print('paraglider.host.changes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.root
def test_a_daemon_is_known_to_be_there(inside: Namespace) -> None:
    """While it runs, for every process of its network namespace."""
    refuse_beside_daemon()
    with announce():
        assert daemons() == [os.getpid()]
        with pytest.raises(OperatorError, match=f"a daemon runs here: process {os.getpid()} "):
            refuse_beside_daemon()
        listed = "from paraglider.host.ownership import daemons; print(daemons())"
        command = [sys.executable, "-c", listed]
        assert inside.run(command).stdout == f"[{os.getpid()}]\n"
    assert daemons() == []


@pytest.mark.root
def test_the_processes_of_a_dead_daemon_are_orphans(tmp_path: Path) -> None:
    """From its death until they have ended."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from paraglider.host.ownership import announce\n"
        "lock = announce(directory=Path(sys.argv[1]))\n"
        "if os.fork(): signal.pause()\n"
        "print(os.getpid(), flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        worker = int(daemon.stdout.readline())
        assert not orphans(tmp_path)
        daemon.kill()
        wait_until(lambda: orphans(tmp_path))  # dead, though nobody has waited for it
        daemon.wait()
        assert orphans(tmp_path)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not orphans(tmp_path))


def test_one_daemon_has_the_carrier(tmp_path: Path) -> None:
    """Another process has not, until the first has ended or gives it up; a forked one of the first
    keeps nothing of it.
    """
    code = (
        "import sys; from pathlib import Path; from paraglider.host.ownership import CarrierClaim\n"
        "print(CarrierClaim(Path(sys.argv[1])).held)"
    )

    def held_elsewhere() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    claim = CarrierClaim(tmp_path)
    assert claim.held
    assert held_elsewhere() == "False"
    sleeping = os.fork()
    if sleeping == 0:
        signal.pause()
        os._exit(0)
    claim.close()
    assert held_elsewhere() == "True"
    os.kill(sleeping, signal.SIGKILL)
    os.waitpid(sleeping, 0)
