"""The conversation of a process without rights with the hub: a question, and its answer in time.

Lives here: ``HubClient`` and ``until_told``, for the processes that serve HTTP (``api``, ``web``).
Rules: an answer that nobody waits for any more is passed over; a channel that is broken ends the
process, which is then replaced.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from typing import Final

from paraglider.daemon.processes.channel import Channel, ChannelClosedError, ChannelError, Message
from paraglider.errors import PlatformError

#: seconds within which the hub has answered, with its own patience within
PATIENCE: Final = 20.0
#: the same for a reload, which waits for programs that change the host
RELOAD: Final = 300.0


def until_told() -> tuple[asyncio.Future[int], Callable[[int], None]]:
    """The end of a process on the running loop: its exit code, in the future, and what sets it.
    SIGTERM does; from here on signals arrive.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ended, end


class HubClient:
    """Asks the hub through ``channel``; ``end`` is called when it is gone."""

    def __init__(self, channel: Channel, end: Callable[[int], None]) -> None:
        self._channel = channel
        self._end = end
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel.fileno(), self._hear)

    async def ask(self, request: Message) -> Message:
        """The hub's reply to ``request``; raises ``PlatformError`` when there is none in time."""
        number = next(self._numbers)
        reply: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[number] = reply
        try:
            self._channel.send({**request, "id": number})
            self._write()
            async with asyncio.timeout(PATIENCE if request.get("do") != "reload" else RELOAD):
                return await reply
        except TimeoutError:
            raise PlatformError("the hub does not answer", "the log says more") from None
        finally:
            self._waiting.pop(number, None)

    def _write(self) -> None:
        """Send what waits, now or when there is room."""
        try:
            self._channel.flush()
        except ChannelError:
            self._lost(PlatformError.exit_code)
            return
        if self._channel.waiting:
            self._loop.add_writer(self._channel.fileno(), self._write)
        else:
            self._loop.remove_writer(self._channel.fileno())

    def _hear(self) -> None:
        try:
            messages = self._channel.receive()
        except ChannelError as error:
            # The end of the supervisor is no fault of this process.
            self._lost(0 if isinstance(error, ChannelClosedError) else PlatformError.exit_code)
            return
        for message in messages:
            reply = self._waiting.get(message.get("re", 0))
            if reply is not None and not reply.done():
                reply.set_result(message)

    def _lost(self, status: int) -> None:
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._end(status)
