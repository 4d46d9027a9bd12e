"""The interface between a worker and a queue; the I/O behind it can be exchanged.

Rules: ``read`` gives a verdict for every packet that it reads, also when the handler raises. It
never blocks: ``reader`` waits for all queues of a worker in one poll.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paraglider.core.packet import LONGEST
from paraglider.netfilter.queue.proc import Drops

#: verdict = handle(buffer, offset, length, state of the checksum, now); see
#: ``forward.nat.datapath``
Handle = Callable[[bytearray, int, int, int, float], int]

#: the longest packet that fits a netlink attribute
LONGEST_PACKET = LONGEST


class Queue(Protocol):
    """One kernel queue that this process reads."""

    #: the I/O's name in the configuration
    name: str
    #: the kernel's queue number
    number: int
    #: packets read, and the rounds they were read in
    packets: int
    batches: int
    #: packets dropped because the handler raised
    faults: int
    #: the first exception of the handler; its traceback holds no packet
    first_fault: Exception | None
    #: packets that the kernel dropped before they were read; refreshed before every tick
    drops: Drops

    @property
    def refused(self) -> int:
        """The number of verdicts that the kernel refused, if the I/O can detect it."""

    def fileno(self) -> int:
        """The descriptor that is readable when a packet waits."""

    def read(self, handle: Handle, limit: int, now: float) -> int:
        """Read up to ``limit`` messages (1 to ``batch.ROUND``) and give their verdicts.

        Returns how many messages were read; raises OSError when the socket broke.
        """

    def copy(self, size: int) -> None:
        """Read at most ``size`` bytes of each packet that is queued from now on; raises OSError."""

    def close(self) -> None:
        """Unbind; the kernel drops what is still queued."""
