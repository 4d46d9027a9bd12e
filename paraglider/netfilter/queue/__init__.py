"""Queue I/O: reads packets from the kernel's NFQUEUE and writes verdicts back.

    interface            what a worker needs from a queue                    (``base``)
    reader               polls the queues of a worker                        (``reader``)
    worker queues        opens the queues of a worker                        (``worker_queues``)
    netlink              the fast implementation, on a netlink socket        (``netlink``)
    batch                a round of packets and of verdicts                  (``batch``)
    netfilterqueue       the portable one, on the NetfilterQueue binding     (``netfilterqueue``)
    messages             layouts of nfnetlink_queue's netlink messages       (``messages``)
    proc                 the kernel's table of queues                        (``proc``)

Every packet gets a verdict: a packet without one keeps its place in the queue for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.errors import PlatformError
from paraglider.netfilter.queue.base import LONGEST_PACKET, Queue
from paraglider.netfilter.queue.netfilterqueue import NetfilterQueueIO
from paraglider.netfilter.queue.netlink import NetlinkQueueIO
from paraglider.netfilter.queue.reader import QueueReader

#: queue I/O by its name in the configuration, the fastest first
QUEUES: dict[str, Callable[[int, int, int, bool, bool], Queue]] = {
    "netlink": NetlinkQueueIO,
    "netfilterqueue": NetfilterQueueIO,
}


def open_queue(
    io: str,
    number: int,
    length: int,
    copy: int = LONGEST_PACKET,
    fail_open: bool = False,
    merged: bool = True,
) -> Queue:
    """Bind the queue ``number``, which holds ``length`` packets at most, to this process.

    ``io`` is the configuration's ``queue.io``; ``auto`` is the fastest that the kernel supports.
    ``copy`` is how many bytes of each packet are read. With ``fail_open`` a packet that finds the
    queue full is accepted unchanged instead of being dropped. Without ``merged`` the kernel splits
    packets that it has merged (GSO) before it queues them. Raises OperatorError when another
    process reads the queue, PlatformError when the kernel refuses.
    """
    if io != "auto":
        return QUEUES[io](number, length, copy, fail_open, merged)
    first, *others = QUEUES.values()
    try:
        return first(number, length, copy, fail_open, merged)
    except PlatformError:
        return others[0](number, length, copy, fail_open, merged)


__all__ = ["QUEUES", "Queue", "QueueReader", "open_queue"]
