"""The kernel's table of connections: forgetting those of a backend, how full it is.

Lives here: ``Conntrack`` (ctnetlink requests, by pyroute2) and ``Fill`` (counters in /proc).
Rules: connections are named by their mark alone, which is that of their backend (``rules.marks``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from paraglider.errors import PlatformError

PROC = Path("/proc")


class Conntrack:
    """Connections of the network namespace that the process runs in."""

    def forget(self, marks: Iterable[int]) -> None:
        """Delete every connection that has one of ``marks``; raises ``PlatformError``.

        The kernel walks its table once a mark (net/netfilter/nf_conntrack_netlink.c,
        ctnetlink_flush_conntrack).
        """
        wanted = list(marks)
        if not wanted:
            return
        from pyroute2 import NFCTSocket
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with NFCTSocket() as requests:
                for mark in wanted:
                    requests.flush(mark=mark, mark_mask=0xFFFFFFFF)
        except (NetlinkError, OSError) as error:
            raise PlatformError(f"conntrack does not forget connections: {error}") from error


class Fill(NamedTuple):
    """How full the table is: connections, the most there may be, packets dropped for want of room
    since the namespace began.
    """

    held: int
    limit: int
    dropped: int


def fill(proc: Path = PROC) -> Fill | None:
    """How full conntrack's table is; None where the kernel has no conntrack loaded."""
    values = proc / "sys/net/netfilter"
    try:
        held = int((values / "nf_conntrack_count").read_text(encoding="ascii"))
        limit = int((values / "nf_conntrack_max").read_text(encoding="ascii"))
        rows = (proc / "net/stat/nf_conntrack").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return None
    column = rows[0].split().index("drop")  # one row a core, hexadecimal
    return Fill(held, limit, sum(int(row.split()[column], 16) for row in rows[1:]))
