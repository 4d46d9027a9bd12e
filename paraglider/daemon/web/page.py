"""The stats page behind ``stats.bind``: its files, JSON, metrics, and its stream of samples.

It requests the status from the supervisor once a second, whatever the number of clients; the
supervisor answers that and, given the token, changes a backend's state or weight, and nothing else
(``readonly_handlers``).

Lives here: ``StatsPage``, which the http process serves.
"""

from __future__ import annotations

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
from paraglider.daemon.web.routes import File


@dataclass(slots=True)
class StatsPage:
    """The page: where it listens, under which names, whether it may ask for changes, its files."""

    listening: socket.socket
    names: tuple[str, ...]
    admin: bool
    files: Mapping[str, File]
    _feed: Feed | None = field(default=None, init=False, repr=False)

    @property
    def rehearsal(self) -> tuple[str, ...]:
        """See ``http.process.HttpPage``."""
        return routes.REHEARSAL

    def application(self, ask: Ask, keep: Keep) -> web.Application:
        """See ``http.process.HttpPage``."""
        about = {"version": paraglider.__version__, "host": socket.gethostname()}
        self._feed = feed = Feed(ask, {**about, "admin": self.admin})
        streams = Streams(feed, keep)
        return routes.application(self.files, feed, streams, RequestGuard(self.names), ask)

    async def feed(self) -> None:
        """See ``http.process.HttpPage``."""
        if self._feed is not None:
            await self._feed.run()
