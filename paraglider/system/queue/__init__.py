"""Queue I/O: packets out of the kernel's NFQUEUE, verdicts back into it.

    interface            what a worker needs of a queue, and nothing more    (``base``)
    netfilterqueue       the portable one, on the NetfilterQueue binding     (``netfilterqueue``)
    messages             layouts of nfnetlink_queue's netlink messages       (``messages``)
    proc                 the kernel's own table of queues                    (``proc``)

Every packet gets a verdict, whatever it is: one left without holds a place in the queue for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.system.queue.base import Queue
from paraglider.system.queue.netfilterqueue import NetfilterQueueIO
from paraglider.system.queue.netlink import NetlinkQueueIO

#: queue I/O by its name in the configuration; ``auto`` is the fastest there is
QUEUES: dict[str, Callable[[int, int], Queue]] = {
    "auto": NetfilterQueueIO,
    "netfilterqueue": NetfilterQueueIO,
    "netlink": NetlinkQueueIO,
}


def open_queue(io: str, number: int, length: int) -> Queue:
    """The queue ``number`` bound to this process, holding ``length`` packets at most.

    ``io`` is the configuration's ``queue.io``. Raises OperatorError when another process reads
    the queue, PlatformError when the kernel refuses.
    """
    return QUEUES[io](number, length)


__all__ = ["QUEUES", "Queue", "open_queue"]
