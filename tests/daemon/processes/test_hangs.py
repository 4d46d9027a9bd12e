"""Hangs: silence that is the process's own fault, with time as an argument."""

from __future__ import annotations

import os

import pytest

from paraglider.daemon.processes.hangs import (
    HANG,
    LONG_WORK,
    POLL,
    SILENT,
    STARVED,
    Hangs,
    Usage,
    usage,
)
from paraglider.daemon.shared_memory.heartbeat import Heartbeat

PID = 77


class World:
    """A process that gives no sign from second 0 on, in state ``state``."""

    def __init__(self, state: str = "S", core: float = 0.0) -> None:
        self.now = 0.0
        self.state = state
        self.heartbeat = Heartbeat()
        self.heartbeat.begin(0.0)
        self._core = core
        self.hangs = Hangs(self._usage)

    def _usage(self, pid: int) -> Usage:
        return Usage(self.state, self._core * self.now)

    def hung_at(self, until: float) -> float | None:
        """When it counts as hung, if before ``until``; polled every POLL seconds."""
        while self.now < until:
            self.now += POLL
            self.hangs.begin_poll(self.now)
            silence = self.hangs.silence(self.heartbeat, 0.0, self.now)
            if self.hangs.hangs(PID, self.heartbeat, silence, self.now):
                return self.now
        return None


@pytest.mark.parametrize(("state", "core"), [("T", 0.0), ("S", 0.0), ("R", 1.0), ("R", 0.3)])
def test_stopped_waiting_and_looping_hang(state: str, core: float) -> None:
    """Within five seconds, including the time for a successor."""
    when = World(state, core).hung_at(60)
    assert when is not None
    assert HANG <= when <= 5.0 - POLL


def test_a_process_without_cpu_time_has_a_longer_timeout() -> None:
    """A runnable process on a busy machine gets more time, up to a limit."""
    when = World("R", 0.01).hung_at(120)
    assert when is not None
    assert when >= STARVED


def test_long_work_may_take_longer() -> None:
    """Up to its own limit."""
    world = World()
    with world.heartbeat.long_work():
        world.heartbeat.beat(0.0)
        assert world.hung_at(LONG_WORK - POLL) is None
        assert world.hung_at(2 * LONG_WORK) is not None


def test_suspended_time_does_not_count() -> None:
    """After a suspension of the machine, or a busy supervisor, all silences start anew."""
    world = World()
    assert world.hung_at(SILENT) is None
    world.now += 3600
    woken = world.now
    when = world.hung_at(woken + 60)
    assert when is not None
    assert when >= woken + HANG


def test_a_sign_of_the_future_is_one_of_now() -> None:
    """A process that lies about it only keeps itself."""
    world = World()
    world.heartbeat.beat(1e12)
    assert world.hung_at(20) is None
    assert world.hangs.silence(world.heartbeat, 0.0, world.now) == 0.0


def test_the_state_of_a_process() -> None:
    """The state of this process, which runs; empty for a missing one."""
    found = usage(os.getpid())
    assert found is not None
    assert found.state == "R"
    assert found.cpu > 0
    assert usage(2**22 + 1) is None
