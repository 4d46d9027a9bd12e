"""Heartbeats: written by a process, read by its parent, with any content."""

from __future__ import annotations

import asyncio
import os
import time
from math import inf, nan

import pytest
from waiting import TIMEOUT

from paraglider.daemon.shared_memory import heartbeat as life_module
from paraglider.daemon.shared_memory.heartbeat import Heartbeat


def test_a_sign_reaches_the_parent() -> None:
    """The page is shared by the fork; a new process starts with an empty one."""
    life = Heartbeat()
    life.begin(5.0)
    pid = os.fork()
    if pid == 0:
        life.beat(7.0)
        life.deciding[0] = 99
        os._exit(0)
    os.waitpid(pid, 0)
    assert (life.last, life.decides, life.works_long) == (7.0, 99, False)
    life.begin(8.0)
    assert (life.last, life.decides) == (8.0, 0)
    life.close()


def test_a_start_that_is_watched() -> None:
    """It sends a heartbeat at once; a new process is not watched, however the last one ended."""
    life = Heartbeat()
    life.begin(0.0)
    assert not life.is_watched
    with life.watched():
        found = life.is_watched, life.last > 0.0
        life.begin(0.0)
        assert not life.is_watched
    assert found == (True, True)


def test_long_work_is_marked_until_its_end() -> None:
    """Also after an exception; the end of long work is a heartbeat."""
    life = Heartbeat()

    def work() -> None:
        with life.long_work():
            assert life.works_long
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert not life.works_long
    assert life.last <= time.monotonic()
    assert life.last > 0


@pytest.mark.parametrize("nonsense", [nan, inf, -inf])
def test_nonsense_is_no_sign(nonsense: float) -> None:
    """A value that is no number counts as the oldest."""
    life = Heartbeat()
    life.beat(nonsense)
    assert life.last == -inf


def test_a_loop_that_turns_gives_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, until it stops."""
    monkeypatch.setattr(life_module, "INTERVAL", 0.001)

    async def turn(life: Heartbeat) -> None:
        life.pulse(asyncio.get_running_loop())
        first = life.last
        for _ in range(3):
            while life.last == first:
                await asyncio.sleep(0)
            first = life.last

    asyncio.run(asyncio.wait_for(turn(Heartbeat()), TIMEOUT))
