"""Queue I/O: packets out of the kernel's NFQUEUE, verdicts back into it.

    interface            what a worker needs of a queue, and nothing more    (``base``)
    reader               the queues of a worker, read in turns               (``reader``)
    netlink              the fast one, on a netlink socket of our own        (``netlink``)
    batch                a round of packets and of verdicts                  (``batch``)
    netfilterqueue       the portable one, on the NetfilterQueue binding     (``netfilterqueue``)
    messages             layouts of nfnetlink_queue's netlink messages       (``messages``)
    proc                 the kernel's own table of queues                    (``proc``)

Every packet gets a verdict, whatever it is: one left without holds a place in the queue for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.errors import PlatformError
from paraglider.netfilter.queue.base import LONGEST_PACKET, Queue
from paraglider.netfilter.queue.netfilterqueue import NetfilterQueueIO
from paraglider.netfilter.queue.netlink import NetlinkQueueIO
from paraglider.netfilter.queue.reader import Reader

#: queue I/O by its name in the configuration, the fastest first
QUEUES: dict[str, Callable[[int, int, int, bool], Queue]] = {
    "netlink": NetlinkQueueIO,
    "netfilterqueue": NetfilterQueueIO,
}


def open_queue(
    io: str, number: int, length: int, copy: int = LONGEST_PACKET, fail_open: bool = False
) -> Queue:
    """The queue ``number`` bound to this process, holding ``length`` packets at most.

    ``io`` is the configuration's ``queue.io``: with ``auto`` the kernel decides, by taking or
    refusing what the fastest asks of it. ``copy`` bytes of each packet are read. With
    ``fail_open`` a packet that finds the queue full goes on untouched instead of being dropped.
    Raises OperatorError when another process reads the queue, PlatformError when the kernel
    refuses.
    """
    if io != "auto":
        return QUEUES[io](number, length, copy, fail_open)
    first, *others = QUEUES.values()
    try:
        return first(number, length, copy, fail_open)
    except PlatformError:
        return others[0](number, length, copy, fail_open)


__all__ = ["QUEUES", "Queue", "Reader", "open_queue"]
