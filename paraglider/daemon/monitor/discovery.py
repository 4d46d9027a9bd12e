"""The process that looks where backends are listed elsewhere: names are asked, files watched.

It runs as nobody without any capability, for it reads what strangers send. It is not locked in:
/etc/resolv.conf may change, and files are watched where they are. It never reads them; the hub
does, and judges whatever this process says (``errands``). It knows nothing that the hub could not
tell it again, so one that dies is replaced, and given its errand anew.

Lives here: ``ScoutSpec`` and ``run``, ``Scout``, ``Rhythm``, ``preload``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from paraglider.daemon import log
from paraglider.daemon.monitor.discovery_messages import Answered, Changed, Errand, Name, News
from paraglider.daemon.monitor.dns_lookup import ROLE, QueryFor, ask, dns_query
from paraglider.daemon.monitor.ipc_endpoint import Mouth, serve
from paraglider.daemon.processes.bootstrap import introduce, lock_in, refused
from paraglider.daemon.processes.spec import Spec
from paraglider.errors import ParagliderError
from paraglider.host import file_watch, srv
from paraglider.host.file_watch import FileWatch, barred

#: seconds that an answer holds at least and at most, whatever its TTL
LEAST: Final = 2.0
MOST: Final = 300.0
#: seconds between two questions that fail, at most; they double from LEAST on
LONGEST_WAIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class ScoutSpec(Spec):
    """All that the scout is told at its start: whom to become."""

    role: ClassVar[str] = ROLE
    uid: int
    gid: int


class Rhythm:
    """When a name is asked again."""

    def __init__(self) -> None:
        self._failures = 0

    def answered(self, ttl: float) -> float:
        """Seconds from an answer to the next question."""
        self._failures = 0
        return min(max(ttl, LEAST), MOST)

    def failed(self) -> float:
        """Seconds from a failure to the next question."""
        wait = min(LEAST * (1 << min(self._failures, 10)), LONGEST_WAIT)
        self._failures += 1
        return wait


class Scout:
    """Asks and watches as it is told, on the running loop, and calls ``tell`` with the news."""

    def __init__(
        self, tell: Callable[[Mapping[str, Any]], None], query_for: QueryFor | None = None
    ) -> None:
        self._tell = tell
        self._query_for = query_for or dns_query
        self._names: dict[Name, asyncio.Task[None]] = {}
        self._files: tuple[str, ...] = ()
        self._watch: FileWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._log: Any = log.logger(role=ScoutSpec.role)
        self.broken: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """See ``mouth.Busy``."""
        self.broken = asyncio.get_running_loop().create_future()

    def take(self, order: Mapping[str, Any]) -> None:
        """See ``mouth.Busy``."""
        errand = Errand.of(order)
        for name in set(self._names) - set(errand.names):
            self._names.pop(name).cancel()
        for name in errand.names:
            if name not in self._names:
                self._names[name] = self._spawn(self._ask(name))
        files = tuple(sorted(set(errand.files)))
        if files != self._files:
            self._files = files
            self._unwatch()
            for file in filter(barred, files):
                self._log.warning(
                    "changes of a file cannot be seen: its directory is closed",
                    file=file,
                    remedy="open the directory for the user of the workers",
                )
            if files:
                self._watch = FileWatch(files, lambda file: self._say(Changed(file)))
                self._watching = self._spawn(self._watch.run())

    async def close(self) -> None:
        """See ``mouth.Busy``."""
        tasks = list(self._names.values())
        for task in tasks:
            task.cancel()
        self._unwatch()
        if self._watching is not None:
            tasks.append(self._watching)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, name: Name) -> None:
        """Ask again and again."""
        rhythm = Rhythm()
        query = self._query_for(name)
        while True:
            news = await ask(name, query)
            self._say(news)
            if isinstance(news, Answered):
                await asyncio.sleep(rhythm.answered(news.ttl))
            else:
                await asyncio.sleep(rhythm.failed())

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _say(self, news: News) -> None:
        self._tell(news.plain())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.broken is None or self.broken.done():
            return
        error = task.exception()
        if error is not None:
            self.broken.set_exception(error)


def run(spec: ScoutSpec, report: int, parent: int) -> int:
    """Be the scout until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    if spec.channel is None:
        raise ValueError("there is no hub to hear")
    mouth = Mouth(spec.channel, spec.role)
    try:
        introduce("paraglider/sct", "paraglider: looks where backends are listed")
        lock_in(spec.filter, parent, (spec.uid, spec.gid), "/")
    except ParagliderError as error:
        return refused(report, error)
    return asyncio.run(serve(Scout(mouth.tell), mouth, report, spec.life))


def preload() -> None:
    """Import all that a scout will need; the supervisor calls it while it may read every file."""
    srv.preload()
    file_watch.preload()
