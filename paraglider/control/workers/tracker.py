"""The tracker: counts the live flows of offloaded services for strategies that ask.

Python sees the first packet of an offloaded flow and nothing of its end. Conntrack knows both:
this process asks for all connections once, hears of every further one that begins or ends, and
keeps a count a backend where the workers read it (``live``). A connection counts for as long as
conntrack keeps it, so a closed one too until its time is over, as in ``nat``.

Events that came faster than they were read are lost; then everything is asked for again. It runs
as the workers do: as nobody, locked in, with CAP_NET_ADMIN alone.
"""

from __future__ import annotations

import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import FrameType
from typing import ClassVar, Final, Self

from paraglider.control import log
from paraglider.control.processes.beginning import introduce, refused, serves
from paraglider.control.processes.children import Equipment, Spec
from paraglider.control.processes.live import LiveFlows
from paraglider.errors import ParagliderError, PlatformError
from paraglider.system import privileges
from paraglider.system.connections import Event, Events, dump

#: seconds between two readings, so that many events come at once; the workers look every 0.1 s
PAUSE: Final = 0.02
#: seconds after which a stop is noticed at the latest
LONGEST_WAIT: Final = 0.2


@dataclass(frozen=True, slots=True)
class TrackerSpec(Spec):
    """All that the tracker is told: where to count, whom to become, where to be locked in."""

    role: ClassVar[str] = "tracker"
    live: LiveFlows
    uid: int
    gid: int
    chroot: str

    def equipped(self, equipment: Equipment) -> Self:
        """See ``children.Spec``."""
        return self if equipment.live is None else replace(self, live=equipment.live)


def run(spec: TrackerSpec, report: int, parent: int) -> int:
    """Be the tracker until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    logger = log.logger(role=spec.role)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    try:
        introduce("paraglider/live", "paraglider: counts live flows")
        signal.signal(signal.SIGTERM, stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        events = Events()
        privileges.drop(spec.uid, spec.gid, spec.chroot)
        privileges.die_with_parent(parent)
        count_anew(spec.live, events.read)
    except ParagliderError as error:
        return refused(report, error)
    except OSError as error:
        why = f"the kernel does not list its connections: {error.strerror}"
        return refused(report, PlatformError(why))
    serves(report)
    times_lost = 0
    while not stopping:
        select.select([events], [], [], LONGEST_WAIT)
        time.sleep(PAUSE)
        found, lost = events.read()
        if lost:
            times_lost += 1
            if times_lost == 1:
                logger.warning("events of connections lost, counting anew")
            count_anew(spec.live, events.read)
        else:
            follow(spec.live, found)
    logger.info("stopped", lost=times_lost)
    return 0


def follow(live: LiveFlows, events: Iterable[Event]) -> None:
    """Count what began and what ended."""
    began: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    for told in events:
        (began if told.began else ended)[told.mark] += 1
    for mark in began.keys() | ended.keys():
        live.change(mark, began[mark], ended[mark])


def count_anew(
    live: LiveFlows,
    read: Callable[[], tuple[list[Event], bool]],
    everything: Callable[[], Iterable[Event]] = dump,
) -> None:
    """Count ``everything``, with the events that came meanwhile.

    A connection may be in the list and have its beginning among the events, or have ended before
    the list came to it: so until both are read, connections are told apart by their id.
    """
    lost = True
    while lost:
        read()  # older than the list
        known = {told.identity: told.mark for told in everything()}
        found, lost = read()
        for told in found:
            if told.began:
                known[told.identity] = told.mark
            else:
                known.pop(told.identity, None)
    live.replace(Counter(known.values()))
