"""A process that looks at things on an event loop, and its channel to the hub.

Lives here: ``Mouth``, the channel's end as the loop has it, ``Busy``, what such a process is about,
and ``serve``, its life.
Rules: it ends when it is asked to, when the hub is gone, or says what is no order; what it has to
say waits for room and never holds the loop up.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from paraglider.daemon import log
from paraglider.daemon.processes.bootstrap import serves
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.heartbeat import Life
from paraglider.errors import PlatformError

#: what is done with an order
Take = Callable[[Mapping[str, Any]], None]


class Mouth:
    """Speaks to the hub and hears it, on the running loop; ``over`` becomes the exit code."""

    def __init__(self, end: Channel, role: str) -> None:
        self._end = end
        self._log: Any = log.logger(role=role)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.over: asyncio.Future[int] | None = None

    def open(self, take: Take) -> asyncio.Future[int]:
        """Hear; ``take`` is given every order. Gives ``over``."""
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()
        self._loop.add_reader(self._end.fileno(), self._hear, take)
        return self.over

    def close(self) -> None:
        """Hear and say no more."""
        if self._loop is not None:
            self._loop.remove_reader(self._end.fileno())
            self._loop.remove_writer(self._end.fileno())

    def tell(self, news: Mapping[str, Any]) -> None:
        """Say ``news`` to the hub."""
        try:
            self._end.send(news)
            self._write()
        except PlatformError as error:
            self.finish(self._lost(error))

    def finish(self, status: int) -> None:
        """End the process with ``status``."""
        if self.over is not None and not self.over.done():
            self.over.set_result(status)

    def _write(self) -> None:
        if self._loop is None:
            return
        self._end.flush()
        if self._end.waiting:
            self._loop.add_writer(self._end.fileno(), self._write_on)
        else:
            self._loop.remove_writer(self._end.fileno())

    def _write_on(self) -> None:
        try:
            self._write()
        except PlatformError as error:
            self.finish(self._lost(error))

    def _hear(self, take: Take) -> None:
        try:
            for order in self._end.receive():
                take(order)
        except PlatformError as error:
            self.finish(self._lost(error))
        except (KeyError, TypeError, ValueError) as error:
            self._log.error("the hub says what is no order", error=repr(error)[:200])
            self.finish(PlatformError.exit_code)

    def _lost(self, error: PlatformError) -> int:
        self.close()
        self._log.warning("the hub is gone", error=str(error))
        return error.exit_code


class Busy(Protocol):
    """What a process is about; from ``start`` on ``broken`` gets the error that nobody foresaw."""

    broken: asyncio.Future[None] | None

    async def start(self) -> None:
        """Be ready for orders."""

    def take(self, order: Mapping[str, Any]) -> None:
        """Do what the hub says; raises KeyError, TypeError or ValueError for what is no order."""

    async def close(self) -> None:
        """End all that was begun."""


async def serve(subject: Busy, mouth: Mouth, report: int, life: Life | None = None) -> int:
    """Tell ``report`` that all is ready, and do what the hub says until the end, with signs of
    ``life``; the exit code.
    """
    loop = asyncio.get_running_loop()
    await subject.start()
    broken = subject.broken
    if broken is None:
        raise ValueError("it has not started")
    over = mouth.open(subject.take)
    loop.add_signal_handler(signal.SIGTERM, mouth.finish, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if life is not None:
        life.pulse(loop)
    serves(report)
    try:
        await asyncio.wait((over, broken), return_when=asyncio.FIRST_COMPLETED)
        if not over.done():
            await broken  # raises: the supervisor logs it and begins anew
        return over.result()
    finally:
        await subject.close()
        mouth.close()
