"""Where flows of dsr are over by our doing their leases end, so that a worker is asked again.

Rules: each worker ends those of a backend when it hears of its loss, or has ended flows to it; the
kernel's set is all workers', so the last to hear has the last word. Where a set cannot be emptied,
leases end by themselves within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from paraglider.forward.dsr.carrier import end_leases


def ender(
    due: Callable[[], Iterable[int]], logger: Any, end: Callable[[int], None] = end_leases
) -> Callable[[], None]:
    """What to call every now and then; ``due`` gives the marks whose leases must end by now."""

    def look() -> None:
        for mark in due():
            try:
                end(mark)
            except OSError as error:
                logger.warning("leases go on for some seconds", mark=hex(mark), why=str(error))

    return look
