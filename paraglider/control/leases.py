"""When a backend of dsr is lost: its flows' leases end, so that the worker is asked about them.

Rules: each worker ends them when it hears of the loss, for the kernel's set is all workers': the
last to hear of it has the last word. Where a set cannot be emptied, leases end by themselves within
seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paraglider.system.nfnetlink import end_leases


def ender(
    lost: Callable[[], frozenset[int]], logger: Any, end: Callable[[int], None] = end_leases
) -> Callable[[], None]:
    """What to call every now and then; ``lost`` gives the marks of the backends that are lost."""
    before = frozenset[int]()

    def look() -> None:
        nonlocal before
        now = lost()
        gone, before = now - before, now
        for mark in gone:
            try:
                end(mark)
            except OSError as error:
                logger.warning("leases go on for some seconds", mark=hex(mark), why=str(error))

    return look
