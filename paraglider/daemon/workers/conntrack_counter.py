"""The conntrack counter: counts the live flows of offloaded services.

Python sees the first packet of an offloaded flow, but not its end. Conntrack knows both. For
services whose strategy needs connection counts, this process dumps conntrack once, follows its
events, and keeps a count per backend in shared memory, which the workers read (``live``). For other
services the counts are only displayed, so they come from periodic dumps, at no cost per flow. A
closed TCP connection is not a live flow; it is counted separately until conntrack removes it.

If events are lost, because they came faster than they were read, conntrack is dumped again. The
process runs as the workers do: user nobody, chroot, CAP_NET_ADMIN only.
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
from paraglider.daemon.processes.bootstrap import (
    lock_down,
    report_error,
    report_ready,
    set_process_name,
)
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.errors import ParagliderError, PlatformError
from paraglider.forward.offload.connection_counts import LiveFlows
from paraglider.host.privileges import NEEDED
from paraglider.netfilter.connections import ConntrackEvent, ConntrackEvents, Turn, dump_all

#: seconds between two reads of events; the workers read the counts every 0.05 s
PAUSE: Final = 0.02
#: longest wait, in seconds, before SIGTERM is noticed
LONGEST_WAIT: Final = 0.2
#: least seconds between two dumps of all connections
LISTING: Final = 5.0
#: and at least this many times the duration of one dump: a million connections take some seconds
LISTING_SHARE: Final = 50.0
#: events after which the kernel still has the connection
_STANDING: Final[tuple[Turn, ...]] = ("began", "closed")
#: nice value: counts that are only displayed may be late
NICENESS: Final = 19


@dataclass(frozen=True, slots=True)
class ConntrackCounterSpec(Spec):
    """The startup parameters of the conntrack counter: ``live`` (counted by events), ``listed``
    (counted by dumps), user, root directory.
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
        set_process_name("paraglider/conn", "paraglider: conntrack counter")
        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        listener = None if spec.live is None else ConnectionListener(spec.live, ConntrackEvents())
        lister = None if spec.listed is None else ConnectionLister(spec.listed)
        if listener is None:
            os.nice(NICENESS)
        lock_down(spec.filter, parent, (spec.uid, spec.gid), spec.chroot, NEEDED)
        if listener is not None:
            listener.begin()
    except ParagliderError as error:
        return report_error(report, error)
    except OSError as error:
        why = f"the kernel does not list its connections: {error.strerror}"
        return report_error(report, PlatformError(why))
    report_ready(report)
    while not stopping:
        spec.heartbeat.beat()
        select.select([] if listener is None else [listener.events], [], [], LONGEST_WAIT)
        with spec.heartbeat.long_work():  # there may be a million connections
            if listener is not None:
                time.sleep(PAUSE)
                listener.read_events(logger)
            if lister is not None:
                lister.poll(logger)
    logger.info("stopped", lost=0 if listener is None else listener.lost)
    return 0


class ConnectionListener:
    """Counts connections by conntrack's ``events``; ``lost`` is how often events were lost."""

    def __init__(self, live: LiveFlows, events: ConntrackEvents) -> None:
        self.events = events
        self.lost = 0
        self._live = live

    def begin(self) -> None:
        """Count the existing connections."""
        count_anew(self._live, self.events.read)
        self._live.mark_polled()

    def read_events(self, logger: Any) -> None:
        """Count the events since the last call."""
        found, lost = self.events.read()
        if not lost:
            count_events(self._live, found)
            self._live.mark_polled()
            return
        self.lost += 1
        if self.lost == 1:
            logger.warning("conntrack events lost, recounting")
        self.begin()


class ConnectionLister:
    """Counts all connections periodically by ``everything`` (a dump); ``clock`` is monotonic
    seconds.
    """

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

    def poll(self, logger: Any) -> None:
        """Count if due. If the kernel refuses the dump, the counts stay as they are."""
        began = self._clock()
        if began < self._next:
            return
        try:
            self._listed.replace(
                *_by_mark((event.mark, event.turn) for event in self._everything())
            )
        except OSError as error:
            if not self._failed:
                logger.warning("connections cannot be listed", why=error.strerror)
            self._failed = True
        else:
            self._failed = False
        now = self._clock()
        self._next = now + max(LISTING, LISTING_SHARE * (now - began))


def count_events(live: LiveFlows, events: Iterable[ConntrackEvent]) -> None:
    """Apply ``events`` to the counts of ``live``."""
    turns: dict[int, Counter[Turn]] = {}
    for event in events:
        turns.setdefault(event.mark, Counter())[event.turn] += 1
    for mark, n in turns.items():
        live.change(mark, n["began"], n["closed"] + n["ended"], n["closed"] - n["forgotten"])


def count_anew(
    live: LiveFlows,
    read: Callable[[], tuple[list[ConntrackEvent], bool]],
    everything: Callable[[], Iterable[ConntrackEvent]] = dump_all,
) -> None:
    """Count ``everything``, with the events that came meanwhile.

    A connection may be in the list and have its beginning among the events, or have ended before
    the list came to it: so until both are read, connections are identified by their id.
    """
    lost = True
    while lost:
        read()  # older than the list
        known = {event.identity: (event.mark, event.turn) for event in everything()}
        found, lost = read()
        for event in found:
            if event.turn in _STANDING:
                known[event.identity] = (event.mark, event.turn)
            else:
                known.pop(event.identity, None)
    live.replace(*_by_mark(known.values()))


def _by_mark(connections: Iterable[tuple[int, Turn]]) -> tuple[Counter[int], Counter[int]]:
    """How many are live and how many closed, by mark."""
    counts: dict[Turn, Counter[int]] = {turn: Counter() for turn in _STANDING}
    for mark, turn in connections:
        counts[turn][mark] += 1
    return counts["began"], counts["closed"]
