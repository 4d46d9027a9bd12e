"""What a worker needs of a queue: a small interface, so that the I/O behind it can change.

Rules: ``take`` gives a verdict for every packet that it reads, also when the handler raises, and
never waits for one: ``reader`` does that, for all queues of a worker at once.
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
    #: its number, by which the kernel knows it
    number: int
    #: packets that came, and the rounds in which they did
    packets: int
    batches: int
    #: packets dropped because handling them raised
    faults: int
    #: what was raised first; its traceback shows where, and holds no packet
    first_fault: Exception | None
    #: what the kernel dropped before we saw it; refreshed by the reader before every tick
    drops: Drops

    @property
    def refused(self) -> int:
        """Verdicts that the kernel refused, where the I/O hears of it."""

    def fileno(self) -> int:
        """The descriptor that is readable when a packet waits."""

    def take(self, handle: Handle, limit: int, now: float) -> int:
        """Read what waits, ``limit`` messages at most (1 to ``batch.ROUND``), and give verdicts.

        Returns how many messages were read; raises OSError when the socket broke.
        """

    def close(self) -> None:
        """Unbind; the kernel drops what is still queued."""
