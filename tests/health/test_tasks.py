"""Tasks that fail unforeseen end the process, and no others do."""

from __future__ import annotations

import asyncio

import pytest
from waiting import TIMEOUT

from paraglider.health.tasks import GuardedTasks


async def fail() -> None:
    """Fails."""
    raise ZeroDivisionError


async def wait() -> None:
    """Never ends."""
    await asyncio.Event().wait()


def test_the_first_error_is_the_one_that_counts() -> None:
    """Others of the same turn are passed over; a task that was cancelled has not failed."""

    async def whole() -> None:
        tasks = GuardedTasks()
        broken = tasks.start()
        cancelled = tasks.spawn(wait())
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert not broken.done()
        failed = [tasks.spawn(fail()) for _ in range(2)]
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(broken, TIMEOUT)
        await tasks.close(failed)

    asyncio.run(whole())


def test_the_end() -> None:
    """All are cancelled, and what was waited for is over."""

    async def whole() -> None:
        tasks = GuardedTasks()
        broken = tasks.start()
        running = [tasks.spawn(wait()) for _ in range(3)]
        await asyncio.wait_for(tasks.close(running), TIMEOUT)
        assert all(task.cancelled() for task in running)
        assert broken.cancelled()

    asyncio.run(whole())
