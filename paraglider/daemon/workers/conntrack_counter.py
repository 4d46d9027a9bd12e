"""The conntrack counter: counts the live flows of offloaded services.

Python sees the first packet of an offloaded flow and nothing of its end. Conntrack knows both. For
strategies that ask, this process asks for all connections once, hears of every further one that
begins or ends, and keeps a count a backend where the workers read it (``live``). The others' are
only shown: those it counts now and then, by asking for all connections, so that flows cost
nothing. A TCP connection that is closed is no live flow; it is counted by itself for as long as
conntrack remembers it.

Events that came faster than they were read are lost; then everything is asked for again. It runs
as the workers do: as nobody, locked in, with CAP_NET_ADMIN alone.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, ClassVar, Final, Self

from paraglider.daemon import log
from paraglider.daemon.processes.bootstrap import introduce, lock_in, refused, serves
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.errors import ParagliderError, PlatformError
from paraglider.forward.offload.connection_counts import LiveFlows
from paraglider.host.privileges import NEEDED
from paraglider.netfilter.connections import ConntrackEvent, ConntrackEvents, Turn, dump_all

#: seconds between two readings, so that many events come at once; the workers look every 0.1 s
PAUSE: Final = 0.02
#: seconds after which a stop is noticed at the latest
LONGEST_WAIT: Final = 0.2
#: seconds between two countings of all connections, at least
LISTING: Final = 5.0
#: and at least so many times what one takes: a million connections take some seconds
LISTING_SHARE: Final = 50.0
#: turns after which the kernel has the connection
_STANDING: Final[tuple[Turn, ...]] = ("began", "closed")
#: and behind everybody else who wants a core: what is only shown may come late
NICENESS: Final = 19


@dataclass(frozen=True, slots=True)
class ConntrackCounterSpec(Spec):
    """All that the conntrack counter is told: where to count what it is told of (``live``) and what
    it lists (``listed``), its user, its root directory.
    """

    role: ClassVar[str] = "conntrack counter"
    live: LiveFlows | None
    listed: LiveFlows | None
    uid: int
    gid: int
    chroot: str

    def updated(self, state: StartupState) -> Self:
        """See ``spec.Spec``."""
        return replace(self, live=state.live or self.live, listed=state.listed or self.listed)


def run(spec: ConntrackCounterSpec, report: int, parent: int) -> int:
    """Be the conntrack counter until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    logger = log.logger(role=spec.role)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    try:
        introduce("paraglider/conn", "paraglider: conntrack counter")
        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        listener = None if spec.live is None else ConnectionListener(spec.live, ConntrackEvents())
        lister = None if spec.listed is None else ConnectionLister(spec.listed)
        if listener is None:
            os.nice(NICENESS)
        lock_in(spec.filter, parent, (spec.uid, spec.gid), spec.chroot, NEEDED)
        if listener is not None:
            listener.begin()
    except ParagliderError as error:
        return refused(report, error)
    except OSError as error:
        why = f"the kernel does not list its connections: {error.strerror}"
        return refused(report, PlatformError(why))
    serves(report)
    while not stopping:
        spec.heartbeat.beat()
        select.select([] if listener is None else [listener.events], [], [], LONGEST_WAIT)
        with spec.heartbeat.long_work():  # there may be a million connections
            if listener is not None:
                time.sleep(PAUSE)
                listener.hear(logger)
            if lister is not None:
                lister.look(logger)
    logger.info("stopped", lost=0 if listener is None else listener.lost)
    return 0


class ConnectionListener:
    """Counts connections as ``events`` tell of them; ``lost`` is how often some were lost."""

    def __init__(self, live: LiveFlows, events: ConntrackEvents) -> None:
        self.events = events
        self.lost = 0
        self._live = live

    def begin(self) -> None:
        """Count what there is."""
        count_anew(self._live, self.events.read)

    def hear(self, logger: Any) -> None:
        """Count what was told since."""
        found, lost = self.events.read()
        if not lost:
            follow(self._live, found)
            return
        self.lost += 1
        if self.lost == 1:
            logger.warning("events of connections lost, counting anew")
        self.begin()


class ConnectionLister:
    """Counts all connections now and then, by ``everything``; ``clock`` is monotonic seconds."""

    def __init__(
        self,
        listed: LiveFlows,
        everything: Callable[[], Iterable[ConntrackEvent]] = dump_all,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listed = listed
        self._everything = everything
        self._clock = clock
        self._next = 0.0
        self._failed = False

    def look(self, logger: Any) -> None:
        """Count, if it is time; what the kernel does not list stays as it was."""
        began = self._clock()
        if began < self._next:
            return
        try:
            self._listed.replace(*_by_mark((told.mark, told.turn) for told in self._everything()))
        except OSError as error:
            if not self._failed:
                logger.warning("connections cannot be listed", why=error.strerror)
            self._failed = True
        else:
            self._failed = False
        now = self._clock()
        self._next = now + max(LISTING, LISTING_SHARE * (now - began))


def follow(live: LiveFlows, events: Iterable[ConntrackEvent]) -> None:
    """Count what became of connections."""
    turns: dict[int, Counter[Turn]] = {}
    for told in events:
        turns.setdefault(told.mark, Counter())[told.turn] += 1
    for mark, n in turns.items():
        live.change(mark, n["began"], n["closed"] + n["ended"], n["closed"] - n["forgotten"])


def count_anew(
    live: LiveFlows,
    read: Callable[[], tuple[list[ConntrackEvent], bool]],
    everything: Callable[[], Iterable[ConntrackEvent]] = dump_all,
) -> None:
    """Count ``everything``, with the events that came meanwhile.

    A connection may be in the list and have its beginning among the events, or have ended before
    the list came to it: so until both are read, connections are told apart by their id.
    """
    lost = True
    while lost:
        read()  # older than the list
        known = {told.identity: (told.mark, told.turn) for told in everything()}
        found, lost = read()
        for told in found:
            if told.turn in _STANDING:
                known[told.identity] = (told.mark, told.turn)
            else:
                known.pop(told.identity, None)
    live.replace(*_by_mark(known.values()))


def _by_mark(connections: Iterable[tuple[int, Turn]]) -> tuple[Counter[int], Counter[int]]:
    """How many are live and how many closed, by mark."""
    counts: dict[Turn, Counter[int]] = {turn: Counter() for turn in _STANDING}
    for mark, turn in connections:
        counts[turn][mark] += 1
    return counts["began"], counts["closed"]
