"""The process behind the control socket: HTTP in, the hub's answers out (aiohttp).

It has no rights: nobody, locked in, without a capability. All it can do is ask the hub, which
believes it nothing. What it is there for is to keep misbehaving clients away from the rest: every
connection has a person (SO_PEERCRED), a longest life, and a number among few; every request a
largest size. Should it die, it is replaced like a worker; the socket outlives it.

Lives here: the process, its connections, and its conversation with the hub. The requests are
``routes``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import prctl

from paraglider.control import log
from paraglider.control.channel import Channel, ChannelClosedError, ChannelError, Message
from paraglider.control.children import READY, Spec
from paraglider.errors import ParagliderError, PlatformError
from paraglider.system import privileges

#: connections at a time
MOST: Final = 64
#: seconds that a connection may last: one request, and the longest of the hub's answers
LIFETIME: Final = 30.0
#: seconds within which the hub has answered, with its own patience within
PATIENCE: Final = 20.0
_SWEEP: Final = 1.0
_UCRED: Final = struct.Struct("=iII")  # pid, uid, gid (unix(7))


@dataclass(frozen=True, slots=True)
class ApiSpec(Spec):
    """All that it is told: where to listen, who may ask beside root, whom to become."""

    role: ClassVar[str] = "api"
    listening: socket.socket
    owner: int
    uid: int
    gid: int
    chroot: str

    def release(self) -> None:
        """See ``children.Spec``."""
        self.listening.close()


def run(spec: ApiSpec, report: int, parent: int) -> int:
    """Be the process until SIGTERM; its exit code. ``report`` is the pipe to the supervisor,
    ``parent`` its process id.
    """
    from paraglider.control import routes  # brings aiohttp, which nobody else needs

    logger = log.logger(role=spec.role)
    try:
        prctl.set_name("paraglider/api")
        prctl.set_proctitle("paraglider: control socket")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        routes.warm_up()
        privileges.drop(spec.uid, spec.gid, spec.chroot, keep=())
        privileges.die_with_parent(parent)
    except ParagliderError as error:
        os.write(report, f"{error.exit_code}{error}".encode())
        return error.exit_code
    if spec.channel is None:
        raise ValueError("there is no hub to ask")
    return asyncio.run(_serve(spec, spec.channel, report, logger))


async def _serve(spec: ApiSpec, channel: Channel, report: int, logger: Any) -> int:
    from paraglider.control import routes

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    loop.add_signal_handler(signal.SIGTERM, end, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    hub = HubClient(channel, end)
    runner = routes.runner(hub.ask)
    await runner.setup()
    door = Door(spec.listening, spec.owner, routes.server_of(runner), logger)
    os.write(report, READY)
    os.close(report)
    try:
        return await ended
    finally:
        door.close()
        await runner.cleanup()


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
            async with asyncio.timeout(PATIENCE):
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


class Door:
    """Accepts connections from ``listening`` for ``server``, MOST at a time, LIFETIME each, from
    root and ``owner`` alone.
    """

    def __init__(
        self,
        listening: socket.socket,
        owner: int,
        server: Any,
        logger: Any,
        *,
        most: int = MOST,
        lifetime: float = LIFETIME,
    ) -> None:
        self._listening = listening
        self._allowed = {0, owner}
        self._server = server
        self._log = logger
        self._most = most
        self._lifetime = lifetime
        self._open: dict[asyncio.Transport, float] = {}  # since when
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)
        self._next = self._loop.call_later(_SWEEP, self._sweep)

    def close(self) -> None:
        """Accept no more, and end what is open."""
        self._loop.remove_reader(self._listening.fileno())
        self._next.cancel()
        for transport in self._open:
            transport.close()

    def _accept(self) -> None:
        try:
            end, _ = self._listening.accept()
        except OSError:  # it has gone again, or there are too many files: the next may do
            return
        uid = _peer(end)
        if uid not in self._allowed:
            self._refuse(end, 403, "the control socket is root's")
            self._log.warning("control: a stranger was refused", uid=uid)
        elif self._count() >= self._most:
            self._refuse(end, 503, "too many connections at a time")
        else:
            task = self._loop.create_task(self._welcome(end))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _welcome(self, end: socket.socket) -> None:
        end.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(self._server, end)
        self._open[transport] = self._loop.time()

    def _count(self) -> int:
        """Connections that are open, or about to be."""
        self._open = {one: since for one, since in self._open.items() if not one.is_closing()}
        return len(self._open) + len(self._tasks)

    def _sweep(self) -> None:
        """End what has lasted too long: half a request, an answer that nobody reads."""
        self._next = self._loop.call_later(_SWEEP, self._sweep)
        self._count()
        for transport, since in self._open.items():
            if since + self._lifetime <= self._loop.time():
                transport.abort()

    @staticmethod
    def _refuse(end: socket.socket, status: int, why: str) -> None:
        body = f'{{"error": "{why}"}}\n'
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with end:
            end.setblocking(False)
            try:
                end.send((head + body).encode())
            except OSError:
                return


def _peer(end: socket.socket) -> int:
    """The user id of who is at the other end."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return int(uid)
