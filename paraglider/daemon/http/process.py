"""The process behind the control socket: HTTP in, the hub's answers out (aiohttp).

It has no rights: nobody, locked in, without a capability. All it can do is ask the hub, which
believes it nothing. What it is there for is to keep misbehaving clients away from the rest: every
connection has a person (SO_PEERCRED), a longest life, and a number among few; every request a
largest size. Should it die, it is replaced like a worker; the socket outlives it.

Lives here: the process, and who may come in. Its connections are ``door``, its conversation with
the hub ``hub_client``, the requests ``routes``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from paraglider.daemon import log
from paraglider.daemon.http import routes
from paraglider.daemon.http.connection_limiter import Admit, Door
from paraglider.daemon.http.ipc_client import RELOAD, HubClient, until_told
from paraglider.daemon.processes.bootstrap import introduce, lock_in, refused, serves
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.spec import Spec
from paraglider.errors import ParagliderError

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
        """See ``spec.Spec``."""
        self.listening.close()


def run(spec: ApiSpec, report: int, parent: int) -> int:
    """Be the process until SIGTERM; its exit code. ``report`` is the pipe to the supervisor,
    ``parent`` its process id.
    """
    logger = log.logger(role=spec.role)
    try:
        introduce("paraglider/api", "paraglider: control socket")
        routes.warm_up()
        lock_in(spec.filter, parent, (spec.uid, spec.gid), spec.chroot)
    except ParagliderError as error:
        return refused(report, error)
    if spec.channel is None:
        raise ValueError("there is no hub to ask")
    return asyncio.run(_serve(spec, spec.channel, report, logger))


async def _serve(spec: ApiSpec, channel: Channel, report: int, logger: Any) -> int:
    ended, end = until_told()
    hub = HubClient(channel, end)

    def waits(transport: asyncio.BaseTransport | None) -> None:
        door.keep(transport, RELOAD)  # which opens last

    runner = routes.runner(routes.application(hub.ask, waits))
    await runner.setup()
    door = Door(spec.listening, _only(spec.owner, logger), routes.server_of(runner))
    spec.life.pulse(asyncio.get_running_loop())
    serves(report)
    try:
        return await ended
    finally:
        door.close()
        await runner.cleanup()


def _only(owner: int, logger: Any) -> Admit:
    """Admit root and ``owner`` alone."""

    def admit(end: socket.socket) -> tuple[int, str] | None:
        uid = _peer(end)
        if uid in (0, owner):
            return None
        logger.warning("control: a stranger was refused", uid=uid)
        return 403, "the control socket is root's"

    return admit


def _peer(end: socket.socket) -> int:
    """The user id of who is at the other end."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return int(uid)
