"""Who has set a namespace up, as the file of the state says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import OperatorError
from paraglider.host.changes.links import AddressChange
from paraglider.host.ownership import (
    SET_UP,
    STARTED,
    announce,
    daemons,
    netns_cookie,
    owner_of,
    refuse_beside_daemon,
    state_path,
    stored,
)
from paraglider.host.state import StateFile
from paraglider.lab.namespace import Namespace

CHANGES = [AddressChange(4, "eth0", "192.168.0.11/24")]


@pytest.mark.parametrize("owner", [SET_UP, STARTED])
def test_the_owner_is_who_stored(tmp_path: Path, owner: str) -> None:
    """As long as anything is stored."""
    path = state_path(tmp_path, 1)
    assert owner_of(path) is None
    StateFile(tmp_path, 1, owner).store(CHANGES)
    assert owner_of(path) == owner
    StateFile(tmp_path, 1, owner).store([])
    assert owner_of(path) is None


def test_a_file_that_names_none_is_of_the_set_up(tmp_path: Path) -> None:
    """Before there was `start`, nobody else could have made it."""
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
    """It is not guessed what it might mean."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    state.path.write_text(json.dumps({**json.loads(state.path.read_text()), **change}))
    with pytest.raises(OperatorError, match=words):
        stored(state.path)


def test_an_earlier_boot_has_no_owner(tmp_path: Path) -> None:
    """What it set up is gone."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    content = {**json.loads(state.path.read_text()), "boot": "another"}
    state.path.write_text(json.dumps(content))
    assert owner_of(state.path) is None


def test_a_namespace_has_one_number() -> None:
    """The same at every question."""
    assert netns_cookie() == netns_cookie()


def test_asking_costs_the_daemon_no_memory() -> None:
    """What a set-up changes, and how, is not imported for it."""
    script = (
        "import sys, paraglider.host.ownership; print('paraglider.host.changes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.root
def test_a_daemon_is_known_to_be_there(inside: Namespace) -> None:
    """For as long as it is, for every process of its network namespace."""
    refuse_beside_daemon()
    with announce():
        assert daemons() == [os.getpid()]
        with pytest.raises(OperatorError, match=f"a daemon runs here: process {os.getpid()} "):
            refuse_beside_daemon()
        listed = "from paraglider.host.ownership import daemons; print(daemons())"
        command = [sys.executable, "-c", listed]
        assert inside.run(command).stdout == f"[{os.getpid()}]\n"
    assert daemons() == []
