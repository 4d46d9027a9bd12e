"""The cores that have a worker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from paraglider.config.model import Config, Workers
from paraglider.errors import OperatorError
from paraglider.forward.queue_rules import queue_rules
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.cores import agree, listed, refuse_other_cores, worker_cores
from paraglider.host.ownership import announce
from paraglider.host.state import StateFile
from paraglider.lab.namespace import Namespace


def test_by_default_every_allowed_core() -> None:
    """Without an entry in the file, the process's affinity decides."""
    assert worker_cores(Workers()) == tuple(sorted(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("first", "last", "cores"),
    [
        (None, None, (0, 1, 4, 5)),
        (0, 1, (0, 1)),
        (4, 4, (4,)),
        (1, None, (1, 4, 5)),
        (None, 4, (0, 1, 4)),
    ],
)
def test_a_range_of_the_allowed_cores(
    first: int | None, last: int | None, cores: tuple[int, ...]
) -> None:
    """A missing end follows the allowed cores, with their gaps."""
    workers = Workers(first_core=first, last_core=last)
    assert worker_cores(workers, {5, 4, 1, 0}) == cores


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (1, 4, "cores 2-3"),
        (0, 6, "cores 2-3, 6"),
        (7, None, "core 7"),
        (None, 9, "core 9"),
    ],
)
def test_a_core_that_is_not_allowed_is_named(
    first: int | None, last: int | None, told: str
) -> None:
    """The message names the cores that are not to be had, and those that are."""
    with pytest.raises(OperatorError) as caught:
        worker_cores(Workers(first_core=first, last_core=last), {5, 4, 1, 0})
    assert f"may not run on {told};" in str(caught.value)
    assert "choose from cores 0-1, 4-5" in str(caught.value)


def test_a_backward_range_is_refused() -> None:
    """first_core above last_core is refused with the range reversed as remedy."""
    with pytest.raises(OperatorError, match=r"write \{first_core: 0, last_core: 1\}"):
        worker_cores(Workers(first_core=1, last_core=0), {0, 1})


def test_cores_are_listed_as_a_person_would() -> None:
    """Runs as ranges."""
    assert [listed(cores) for cores in ((3,), (0, 1), (0, 1, 2, 5))] == [
        "core 3",
        "cores 0-1",
        "cores 0-2, 5",
    ]


#: of the steering in the rules
SEED = 1


def rules(forward: str, cores: tuple[int, ...]) -> RulesChange:
    """The state that a set-up for ``cores`` stores."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "udp", "backends": ["10.0.0.1"]}
    service |= {"forward": forward, "ports": 53}
    sides = {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}}
    found = queue_rules(
        Config.model_validate({"services": [service], "network": sides}), 4, cores, SEED
    )
    assert found is not None
    return RulesChange(4, found.text(), None)


@pytest.mark.parametrize("forward", ["nat", "offload", "dsr"])
def test_a_daemon_agrees_with_the_set_up(tmp_path: Path, forward: str) -> None:
    """With the same cores it starts; otherwise it names the difference and the remedy."""
    state = StateFile(tmp_path, 1)
    agree((0, 1), {4, 6}, SEED, state.path)
    state.store([rules(forward, (0, 1))])
    agree((0, 1), {4, 6}, SEED, state.path)
    agree((0,), {6}, SEED, state.path)
    for cores, told in (((1,), "core 1"), ((0, 1, 2), "cores 0-2"), ((2, 3), "cores 2-3")):
        with pytest.raises(OperatorError) as refused:
            agree(cores, {4}, SEED, state.path)
        assert f"was run for cores 0-1, and the daemon would work on {told}" in refused.value.what
        assert "run paraglider.config as the daemon is run" in refused.value.remedy


def test_a_daemon_with_another_seed_than_the_set_up_is_refused(tmp_path: Path) -> None:
    """Packets would be steered to other workers than it thinks."""
    state = StateFile(tmp_path, 1)
    state.store([rules("nat", (0, 1))])
    agree((0, 1), {6}, SEED + 1, state.path)
    with pytest.raises(OperatorError, match="another `seed`.*; run paraglider.config again"):
        agree((0, 1), {4}, SEED + 1, state.path)


@pytest.mark.root
def test_a_set_up_agrees_with_the_daemon(inside: Namespace) -> None:
    """With the same cores it succeeds; a set-up without workers is not compared."""
    refuse_other_cores((0,))
    with announce((0, 1)) as lock:
        assert json.loads(lock.path.read_text()) == [0, 1]
        refuse_other_cores((0, 1))
        refuse_other_cores(())
        with pytest.raises(OperatorError, match="works on cores 0-1, and this set-up would be for"):
            refuse_other_cores((1,))
    with announce():
        refuse_other_cores((1,))
    refuse_other_cores((1,))
