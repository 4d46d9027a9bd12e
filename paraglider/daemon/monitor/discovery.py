"""Discovery: queries DNS names periodically, and watches files that list backends.

Files are never read here; the supervisor reads them, and validates what is reported. Discovery has
no state that the supervisor could not send again.

Lives here: ``Discovery``, ``Backoff``, ``preload``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from paraglider.daemon import log
from paraglider.daemon.messages import DnsName, DnsUpdate, FileChanged
from paraglider.daemon.monitor.dns_lookup import QueryFor, dns_query, resolve
from paraglider.daemon.monitor.outbox import DiscoveryNews
from paraglider.health.tasks import GuardedTasks
from paraglider.host import srv
from paraglider.host.file_watch import FileWatch, unreadable

#: least and most seconds that an answer is used, whatever its TTL
LEAST: Final = 2.0
MOST: Final = 300.0
#: most seconds between two failing queries; the pause doubles from LEAST on
LONGEST_WAIT: Final = 30.0


class Backoff:
    """Computes when a name is queried again."""

    def __init__(self) -> None:
        self._failures = 0

    def answered(self, ttl: float) -> float:
        """Seconds from an answer to the next query."""
        self._failures = 0
        return min(max(ttl, LEAST), MOST)

    def failed(self) -> float:
        """Seconds from a failure to the next query."""
        wait = min(LEAST * (1 << min(self._failures, 10)), LONGEST_WAIT)
        self._failures += 1
        return wait


class Discovery:
    """Queries names and watches files on the running loop, and calls ``notify`` with the
    results.
    """

    def __init__(
        self, notify: Callable[[DiscoveryNews], None], query_for: QueryFor | None = None
    ) -> None:
        self._notify = notify
        self._query_for = query_for or dns_query
        self._names: dict[DnsName, asyncio.Task[None]] = {}
        self._files: tuple[str, ...] = ()
        self._resolv_conf = ""
        self._watch: FileWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._log: Any = log.logger(role="monitor")
        self._tasks = GuardedTasks()

    async def start(self) -> asyncio.Future[None]:
        """Prepare for ``update``; the returned future gets unexpected errors."""
        return self._tasks.start()

    def update(
        self, names: tuple[DnsName, ...], files: tuple[str, ...], resolv_conf: str = ""
    ) -> None:
        """Query these names, by ``resolv_conf``, and watch these files from now on, no others."""
        self._resolv_conf = resolv_conf
        for name in set(self._names) - set(names):
            self._names.pop(name).cancel()
        for name in names:
            if name not in self._names:
                self._names[name] = self._tasks.spawn(self._resolve(name))
        files = tuple(sorted(set(files)))
        if files != self._files:
            self._files = files
            self._unwatch()
            for file in filter(unreadable, files):
                self._log.warning(
                    "file not watched: its directory cannot be read",
                    file=file,
                    remedy="open the directory for the user of the workers",
                )
            if files:
                self._watch = FileWatch(files, lambda file: self._notify(FileChanged(file=file)))
                self._watching = self._tasks.spawn(self._watch.run())

    async def close(self) -> None:
        """Stop querying and watching."""
        self._unwatch()
        watching = [] if self._watching is None else [self._watching]
        await self._tasks.close([*self._names.values(), *watching])

    async def _resolve(self, name: DnsName) -> None:
        """Query ``name`` periodically."""
        backoff = Backoff()
        while True:
            news = await resolve(name, self._query_for(name, self._resolv_conf))
            self._notify(news)
            if isinstance(news, DnsUpdate):
                await asyncio.sleep(backoff.answered(news.ttl))
            else:
                await asyncio.sleep(backoff.failed())

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None


def preload() -> None:
    """Import everything needed; called by the supervisor before privileges are dropped."""
    srv.preload()
