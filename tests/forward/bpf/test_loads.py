"""Tests of ``paraglider.forward.bpf.loads``: every worker's flows are in the sum."""

from __future__ import annotations

import os

from bpf_world import web

from paraglider.core.translation import Translation
from paraglider.forward.bpf.loads import SharedLoads


def placed(flows: int, opening: int = 0) -> list[Translation]:
    """The translations of a worker, whose backends have as many flows."""
    found = list(web().translations.values())
    for slot, translation in enumerate(found, 1):
        translation.slot = slot
        translation.backend.flows, translation.backend.opening = flows * slot, opening
    return found


def test_the_flows_of_all_workers_are_summed_up() -> None:
    """Live ones and those that are opening, of each translation for itself."""
    loads = SharedLoads(3)
    for worker in range(3):
        loads.write(worker, placed(10**worker, 1))
    assert [loads.total(each) for each in placed(0)] == [114, 225]
    loads.write(1, placed(0))
    assert [loads.total(each) for each in placed(0)] == [103, 204]


def test_a_successor_begins_without_flows() -> None:
    """What its predecessor had written does not count."""
    loads = SharedLoads(2)
    loads.write(0, placed(5))
    loads.write(1, placed(7))
    loads.reset(0)
    assert [loads.total(each) for each in placed(0)] == [7, 14]


def test_one_busy_worker_suffices() -> None:
    """Each is until it says otherwise; its flows do not matter."""
    loads = SharedLoads(2)
    for worker in range(2):
        loads.reset(worker)
        loads.write(worker, web().translations.values())
    assert loads.busy
    loads.set_busy(0, busy=False)
    assert loads.busy
    loads.set_busy(1, busy=False)
    assert not loads.busy


def test_processes_share_them() -> None:
    """A worker is forked after they were made."""
    loads = SharedLoads(2)
    pid = os.fork()
    if pid == 0:
        loads.write(1, placed(3))
        os._exit(0)
    os.waitpid(pid, 0)
    assert [loads.total(each) for each in placed(0)] == [3, 6]
