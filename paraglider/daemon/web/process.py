"""The process behind ``stats.bind``: the page, its JSON and its stream of samples (aiohttp).

Like the process of the control socket it has no rights: nobody, locked in, without a capability.
It asks the hub once a second, whatever the number of its readers; the hub answers it that and,
given the right token, changes a backend's state or weight, and nothing else
(``readonly_handlers``).

Lives here: the process. Its connections are ``connection_limiter``, the requests ``routes``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import paraglider
from paraglider.daemon.http.connection_limiter import Door, Shares, everybody
from paraglider.daemon.http.ipc_client import HubClient, until_told
from paraglider.daemon.http.routes import runner as runner_of
from paraglider.daemon.http.routes import server_of
from paraglider.daemon.processes.bootstrap import introduce, lock_in, refused, serves
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.web import routes
from paraglider.daemon.web.events import Streams
from paraglider.daemon.web.feed import Feed
from paraglider.daemon.web.guard import Guard
from paraglider.daemon.web.routes import File
from paraglider.errors import ParagliderError, PlatformError

#: connections at a time: twice the streams, so that requests have room beside them
MOST: Final = 128
#: connections of one client, and places for those who come from this host, such as a monitor
SHARES: Final = Shares(each=32, reserve=16)
#: seconds that a connection may last which is no stream
LIFETIME: Final = 25.0


@dataclass(frozen=True, slots=True)
class StatsSpec(Spec):
    """All that it is told: where to listen, under which names, whether it may ask for changes,
    whom to become, and the files of the page.
    """

    role: ClassVar[str] = "stats"
    listening: socket.socket
    names: tuple[str, ...]
    admin: bool
    uid: int
    gid: int
    chroot: str
    files: Mapping[str, File]

    def release(self) -> None:
        """See ``spec.Spec``."""
        self.listening.close()


def run(spec: StatsSpec, report: int, parent: int) -> int:
    """Be the process until SIGTERM; its exit code. ``report`` is the pipe to the supervisor,
    ``parent`` its process id.
    """
    if spec.channel is None:
        raise ValueError("there is no hub to ask")
    try:
        introduce("paraglider/web", "paraglider: stats page")
        return asyncio.run(_serve(spec, spec.channel, report, parent))
    except ParagliderError as error:
        return refused(report, error)


async def _serve(spec: StatsSpec, channel: Channel, report: int, parent: int) -> int:
    ended, end = until_told()
    hub = HubClient(channel, end)
    told = {"version": paraglider.__version__, "host": socket.gethostname(), "admin": spec.admin}
    feed = Feed(hub.ask, told)

    def keep(transport: asyncio.BaseTransport | None, seconds: float) -> None:
        door.keep(transport, seconds)  # which opens last

    streams = Streams(feed, keep)
    runner = runner_of(routes.application(spec.files, feed, streams, Guard(spec.names), hub.ask))
    await runner.setup()
    await routes.warm_up(runner)
    lock_in(spec.filter, parent, (spec.uid, spec.gid), spec.chroot)
    door = Door(
        spec.listening,
        everybody,
        server_of(runner),
        most=MOST,
        lifetime=LIFETIME,
        shares=SHARES,
    )
    feeding = asyncio.create_task(feed.run())
    feeding.add_done_callback(lambda _: end(PlatformError.exit_code))
    spec.life.pulse(asyncio.get_running_loop())
    serves(report)
    try:
        return await ended
    finally:
        feeding.cancel()
        door.close()
        await runner.cleanup()
