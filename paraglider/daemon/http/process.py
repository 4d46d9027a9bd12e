"""The process that speaks HTTP: the control socket, and the page with its metrics (aiohttp).

It has no privileges: user nobody, chroot to an empty directory, no capability. It can only send
requests to the supervisor, which does not trust it. Connections of the control socket come from the
supervisor, which has read their requests (``control.connections``) and executes no others. Requests
of ``stats`` (the network, any client) are answered by the read-only handlers.

Lives here: ``HttpSpec``, ``run``. Connections are in ``connection_limiter``, requests in ``routes``
and ``web.routes``.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from aiohttp import web

from paraglider.daemon import log
from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.control.handover import HandedConnections
from paraglider.daemon.http import routes
from paraglider.daemon.http.announce import VipStreams
from paraglider.daemon.http.connection_limiter import ConnectionLimiter, Shares, everybody
from paraglider.daemon.ipc import EndpointClosedError, LoopEndpoint
from paraglider.daemon.messages import Message, ReloadRequest, Result, VipNews
from paraglider.daemon.processes.bootstrap import (
    ignore_termination,
    lock_down,
    report_error,
    report_ready,
    set_process_name,
)
from paraglider.daemon.processes.spec import Spec
from paraglider.errors import ParagliderError, PlatformError

#: timeout, in seconds, of a request to the supervisor; longer than the supervisor's own
TIMEOUT: Final = 20.0
#: the same for a reload, which waits for programs that change the host
RELOAD: Final = 300.0
#: concurrent connections of the page: twice its streams, so that there is room for requests
MOST: Final = 128
#: connections of one client, and connections reserved for clients on this host, such as a monitor
SHARES: Final = Shares(each=32, reserve=16)
#: seconds that a connection to the page may last, unless it is a stream
LIFETIME: Final = 25.0


class HttpPage(Protocol):
    """The page behind ``stats.bind``: see ``web.page.StatsPage``."""

    @property
    def listening(self) -> socket.socket:
        """Its listening socket."""

    def application(self, ask: routes.Ask, keep: routes.Keep) -> web.Application:
        """Its application; called on the running loop."""

    async def feed(self) -> None:
        """Keep its figures up to date; never returns."""

    @property
    def rehearsal(self) -> tuple[str, ...]:
        """One request of each outcome."""

    @property
    def peers(self) -> tuple[str, ...]:
        """The pages of other balancers, which it asks."""


@dataclass(frozen=True, slots=True)
class HttpSpec(Spec):
    """The startup parameters of the http process: the connections of the control socket, the user
    to become, the root directory, and the page, if there is one.
    """

    role: ClassVar[str] = "http"
    control: ControlConnections
    uid: int
    gid: int
    chroot: str
    page: HttpPage | None = None

    @property
    def filter(self) -> str:
        """See ``spec.Spec``: only a page with peers may connect anywhere."""
        return f"{self.role}-peers" if self.page is not None and self.page.peers else self.role

    def release(self) -> None:
        """See ``spec.Spec``."""
        self.control.close()
        if self.page is not None:
            self.page.listening.close()


def run(spec: HttpSpec, report: int, parent: int) -> int:
    """Run the process until SIGTERM; returns its exit code. ``report`` is the pipe to the
    supervisor, ``parent`` its process id.
    """
    try:
        set_process_name("paraglider/http", "paraglider: control socket, page and metrics")
        return asyncio.run(_serve(spec, report, parent))
    except ParagliderError as error:
        return report_error(report, error)


async def _serve(spec: HttpSpec, report: int, parent: int) -> int:
    if spec.endpoint is None:
        raise ValueError("the http process needs an endpoint")
    spec.control.keep_handover()
    handed = HandedConnections(spec.control.handover.taking)
    logger = log.logger(role=spec.role)
    loop = asyncio.get_running_loop()
    streams = VipStreams()

    def on_message(message: Message) -> None:
        if isinstance(message, VipNews):
            streams.update(message)

    endpoint = LoopEndpoint(spec.endpoint, on_message)
    limiters: list[ConnectionLimiter] = []
    loop.add_signal_handler(signal.SIGTERM, endpoint.finish, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    async def ask(request: Message) -> Message:
        if not limiters:  # a rehearsal
            return Result(value=[])
        timeout = RELOAD if isinstance(request, ReloadRequest) else TIMEOUT
        return await endpoint.request(request, timeout)

    def hold(transport: asyncio.BaseTransport | None, seconds: float) -> None:
        limiters[0].keep(transport, seconds)

    def waits(transport: asyncio.BaseTransport | None) -> None:
        hold(transport, RELOAD)

    def keep(transport: asyncio.BaseTransport | None, seconds: float) -> None:
        limiters[1].keep(transport, seconds)

    control = routes.application(ask, handed.number_of, waits)

    async def tell(request: web.Request) -> web.StreamResponse:
        return await streams.serve(request, ask, handed.number_of, hold)

    control.router.add_get("/v1/announce", tell, allow_head=False)
    runners = [routes.runner(control)]
    rehearsals: list[tuple[str, ...]] = [routes.REHEARSAL]
    if spec.page is not None:
        runners.append(routes.runner(spec.page.application(ask, keep)))
        rehearsals.append(spec.page.rehearsal)
    for runner, requests in zip(runners, rehearsals, strict=True):
        await runner.setup()
        await routes.rehearse(runner, requests)
    lock_down(spec.filter, parent, (spec.uid, spec.gid), spec.chroot)

    def admit(end: socket.socket) -> tuple[int, str] | None:
        return None if handed.number(end) else (403, "the control socket is root's")

    limiters.append(ConnectionLimiter(handed, admit, routes.server_of(runners[0])))
    feeding: asyncio.Task[None] | None = None
    if spec.page is not None:
        limiters.append(
            ConnectionLimiter(
                *(spec.page.listening, everybody, routes.server_of(runners[1])),
                most=MOST,
                lifetime=LIFETIME,
                shares=SHARES,
            )
        )
        feeding = asyncio.create_task(spec.page.feed())
        feeding.add_done_callback(lambda _: endpoint.finish(PlatformError.exit_code))
    spec.heartbeat.pulse(loop)
    report_ready(report)
    try:
        status = await endpoint.closed
    finally:
        ignore_termination()
        if feeding is not None:
            feeding.cancel()
        for limiter in limiters:
            limiter.close()
        for runner in runners:
            await runner.cleanup()
    if endpoint.error is not None and not isinstance(endpoint.error, EndpointClosedError):
        logger.error("invalid message from the supervisor", error=str(endpoint.error))
    return status
