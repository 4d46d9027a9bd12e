"""The feed: requests the supervisor's status, once for all clients, and keeps the answer.

Rules: one request at a time, at most one a second; if answers take long the pause is longer, so the
supervisor and the workers spend at most a tenth of their time on it, whatever the number of
clients. No client's request becomes one to the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

from paraglider.daemon.http.routes import Ask
from paraglider.daemon.messages import Result, ShowRequest
from paraglider.daemon.web.history import History
from paraglider.daemon.web.sample import Row, Sampler
from paraglider.errors import PlatformError

INTERVAL: Final = 1.0
#: the pause is this many times the duration of the last request
_SHARE: Final = 10


class Feed:
    """Calls ``ask`` periodically; ``about`` is added to every sample."""

    def __init__(self, ask: Ask, about: Row, *, interval: float = INTERVAL) -> None:
        self._ask = ask
        self._about = about
        self._interval = interval
        self._sampler = Sampler()
        self._changed = asyncio.Condition()
        self.history = History()
        self.sample: Row | None = None
        self.number = 0
        self._text = b""
        self._due: float | None = None  # when the next sample begins, by the loop's clock

    async def run(self) -> None:
        """Request periodically; never returns."""
        clock = asyncio.get_running_loop().time
        while True:
            before, answered = clock(), False
            # While the supervisor is busy the page shows the age of its numbers.
            with contextlib.suppress(PlatformError):
                await self._poll(clock)
                answered = True
            took = clock() - before
            pause = max(self._interval - took, took * _SHARE, 0.0)
            if answered:
                self._due = clock() + pause
            await asyncio.sleep(pause)

    def now(self) -> Row:
        """The last sample; raises ``PlatformError`` before the first."""
        if self.sample is None:
            raise PlatformError("nothing is known yet", "ask again in a moment")
        return self.sample

    @property
    def late(self) -> float:
        """Seconds for which the next sample has been due; 0 if it is not, or before the first."""
        now = asyncio.get_running_loop().time()
        return 0.0 if self._due is None else max(0.0, now - self._due)

    async def after(self, number: int) -> tuple[int, bytes]:
        """The number and text of the first sample with a higher number than ``number``."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.number > number)
            return self.number, self._text

    async def _poll(self, clock: Callable[[], float]) -> None:
        reply = await self._ask(ShowRequest(listener="stats", view="status"))
        if not isinstance(reply, Result):
            raise PlatformError("the supervisor gives no figures")
        self._update(reply.value, clock())
        async with self._changed:
            self._changed.notify_all()

    def _update(self, status: Row, now: float) -> None:
        self.sample = {**self._about, **self._sampler.sample(status, now)}
        self.history.record(self.sample)
        self._text = json.dumps(self.sample, separators=(",", ":")).encode()
        self.number += 1


def of_service(rows: list[dict[str, Any]], service: str | None) -> list[dict[str, Any]]:
    """The rows of ``service``, or all."""
    return [row for row in rows if service in (None, row["service"])]
