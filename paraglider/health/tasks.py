"""Tasks of the monitor, none of which fails unnoticed.

Lives here: ``GuardedTasks``, used by the checker and by discovery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


class GuardedTasks:
    """Starts tasks on the running loop; the first unexpected error of one sets ``broken``."""

    def __init__(self) -> None:
        self._broken: asyncio.Future[None] | None = None

    def start(self) -> asyncio.Future[None]:
        """The future ``broken``, on the running loop; to be called before ``spawn``."""
        self._broken = asyncio.get_running_loop().create_future()
        return self._broken

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that does ``work``."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._over)
        return task

    async def close(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Cancel ``tasks`` and wait for their end; errors no longer matter."""
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._broken is not None:
            self._broken.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._broken is None or self._broken.done():
            return
        error = task.exception()
        if error is not None:
            self._broken.set_exception(error)
