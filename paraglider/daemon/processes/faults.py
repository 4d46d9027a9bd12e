"""Contains unexpected exceptions that must not end the daemon.

Lives here: ``Faults``.
Rules: a fault is logged with its traceback the first time, and again after QUIET seconds at the
earliest; two faults are the same if they were raised at the same place. ``ParagliderError`` is an
operator's error: it is contained only if the caller asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from paraglider.daemon import log

#: seconds between two tracebacks of the same fault
QUIET: Final = 600.0
#: most distinct faults that are remembered
_MOST: Final = 256


class Faults:
    """The faults of one process; ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[tuple[str, str, str, int], float] = {}
        self.last: dict[str, tuple[float, str]] = {}  # step → time and name of the error
        self._log: Any = log.logger()

    @contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """Continue after the block, whatever ``Exception`` it raises; ``what`` names the step."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the daemon goes on with what it has
            self.note(what, error)

    def note(self, what: str, error: Exception) -> None:
        """Log that ``what`` has failed with ``error``."""
        now = self._clock()
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (
            (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ("", 0)
        )
        key = (what, type(error).__name__, *place)
        self.last[what] = now, type(error).__name__
        if now - self._logged.get(key, -QUIET) < QUIET:
            return
        if len(self._logged) >= _MOST:
            self._logged.clear()
        self._logged[key] = now
        self._log.error(f"internal error: {what}", error=repr(error)[:200], exc_info=error)
