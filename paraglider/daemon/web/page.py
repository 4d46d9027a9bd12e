"""The stats page behind ``stats.bind``: its files, JSON, metrics, and its stream of samples.

It requests the status from the supervisor once a second, whatever the number of clients; the
supervisor answers that and, given the token, changes a backend's state or weight, and nothing else
(``readonly_handlers``).

Lives here: ``StatsPage``, which the http process serves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

import paraglider
from paraglider.daemon.http.routes import Ask, Keep
from paraglider.daemon.web import routes
from paraglider.daemon.web.events import Streams
from paraglider.daemon.web.feed import Feed
from paraglider.daemon.web.guard import RequestGuard
from paraglider.daemon.web.peers import Peers
from paraglider.daemon.web.routes import File, Shown
from paraglider.daemon.web.sample import Row


@dataclass(slots=True)
class StatsPage:
    """The page: where it listens, under which names, whether it may ask for changes, its files, and
    the addresses of other balancers' pages.
    """

    listening: socket.socket
    names: tuple[str, ...]
    admin: bool
    files: Mapping[str, File]
    peers: tuple[str, ...] = ()
    _feed: Feed | None = field(default=None, init=False, repr=False)
    _peers: Peers | None = field(default=None, init=False, repr=False)

    @property
    def rehearsal(self) -> tuple[str, ...]:
        """See ``http.process.HttpPage``."""
        return routes.REHEARSAL

    def application(self, ask: Ask, keep: Keep) -> web.Application:
        """See ``http.process.HttpPage``."""
        about: Row = {"version": paraglider.__version__, "host": socket.gethostname()}
        about |= {"admin": self.admin, "peers": len(self.peers)}
        self._feed = feed = Feed(ask, about)
        self._peers = peers = Peers(self.peers)
        shown = Shown(self.files, feed, Streams(feed, keep), peers)
        return routes.application(shown, RequestGuard(self.names), ask)

    async def feed(self) -> None:
        """See ``http.process.HttpPage``."""
        if self._feed is not None and self._peers is not None:
            await asyncio.gather(self._feed.run(), self._peers.run())
