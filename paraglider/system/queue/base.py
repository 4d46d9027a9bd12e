"""What a worker needs of a queue: a small interface, so that the I/O behind it can change.

Rules: ``serve`` gives a verdict for every packet, also when the handler raises; it reads the
clock, the handler does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paraglider.system.queue.proc import Drops

#: verdict = handle(buffer, offset, length, state of the checksum, now); see ``core.nat``
Handle = Callable[[bytearray, int, int, int, float], int]

#: seconds between two calls of ``tick`` at most, and so the delay of a stop
TICK = 0.05

#: the longest packet that fits a netlink attribute (nlattr.nla_len is 16 bits, 4 are the header)
LONGEST_PACKET = 65531


class Queue(Protocol):
    """One kernel queue that this process reads."""

    #: the I/O's name in the configuration
    name: str
    #: packets that came, and the rounds in which they did
    packets: int
    batches: int
    #: packets dropped because handling them raised
    faults: int
    #: what was raised first; its traceback shows where, and holds no packet
    first_fault: Exception | None
    #: what the kernel dropped before we saw it; refreshed before every tick
    drops: Drops

    @property
    def refused(self) -> int:
        """Verdicts that the kernel refused, where the I/O hears of it."""

    def serve(self, handle: Handle, tick: Callable[[float], object]) -> None:
        """Read packets and give verdicts until ``stop``; call ``tick(now)`` every TICK seconds."""

    def stop(self) -> None:
        """Make ``serve`` return soon; may be called from a signal handler."""

    def close(self) -> None:
        """Unbind; the kernel drops what is still queued."""
