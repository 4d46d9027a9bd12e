"""The kernel's table of queues: readers and drops.

A line of /proc/net/netfilter/nfnetlink_queue (net/netfilter/nfnetlink_queue.c, seq_show) is: queue
number, netlink port of its reader, packets waiting, copy mode, copy range, packets dropped because
the queue was full, packets dropped because the reader's socket was full, last packet id, 1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from paraglider.errors import OperatorError, PlatformError

TABLE = Path("/proc/net/netfilter/nfnetlink_queue")


class QueueStatus(NamedTuple):
    """One line of the table."""

    number: int
    port: int
    waiting: int
    copy_range: int
    queue_dropped: int
    user_dropped: int


def queue_status(table: Path = TABLE) -> dict[int, QueueStatus]:
    """Every bound queue by its number; raises PlatformError when the kernel has no NFQUEUE."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise PlatformError(
            f"the kernel has no NFQUEUE ({table} is missing)",
            "load it with `modprobe nfnetlink_queue`, or use a kernel built with "
            "CONFIG_NETFILTER_NETLINK_QUEUE",
        ) from None
    return _parse(lines)


class Drops:
    """Packets of one queue that the kernel dropped since it was bound, as last read.

    ``overflows`` counts packets that found the queue full, ``overruns`` those that found the
    reader's socket full. The file stays open so that it can be read after chroot.
    """

    def __init__(self, number: int, table: Path = TABLE) -> None:
        self.overflows = 0
        self.overruns = 0
        self._number = number
        self._table = table.open("rb", buffering=0)

    def refresh(self) -> None:
        """Read the kernel's counters again; those of an unbound queue keep their values."""
        text = os.pread(self._table.fileno(), 1 << 16, 0).decode("ascii")
        status = _parse(text.splitlines()).get(self._number)
        if status is not None:
            self.overflows, self.overruns = status.queue_dropped, status.user_dropped

    def close(self) -> None:
        """Close the table's file."""
        self._table.close()


def _parse(lines: list[str]) -> dict[int, QueueStatus]:
    status = {}
    for line in lines:
        number, port, waiting, _mode, copy, dropped, user_dropped = map(int, line.split()[:7])
        status[number] = QueueStatus(number, port, waiting, copy, dropped, user_dropped)
    return status


def require_free(numbers: tuple[int, ...], table: Path = TABLE) -> None:
    """Raise OperatorError when a process already reads one of the queues ``numbers``."""
    taken = sorted(status for number, status in queue_status(table).items() if number in numbers)
    if not taken:
        return
    queues = ", ".join(str(status.number) for status in taken)
    readers = [reader for status in taken if (reader := _reader(status.port))]
    reader = readers[0] if readers else f"netlink port {taken[0].port}"
    raise OperatorError(
        f"queue {queues} already has a reader: {reader}",
        "stop the other paraglider first, or give this one other cores under `workers`",
    )


def _reader(port: int) -> str | None:
    # The port of a process's first netlink socket is its pid; ports of further sockets are not.
    try:
        name = Path(f"/proc/{port}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return f"process {port} ({name})"
