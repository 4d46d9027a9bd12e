"""Handles Ctrl-C (and SIGTERM, SIGHUP) so that the clean-up always runs.

Rules: only the first interrupt raises ``KeyboardInterrupt``. Steps that must not be interrupted
(the set-up of a host) run in ``deferred``. After ``ignore`` no interrupt is raised. Of two nested
``finally`` blocks that both clean up, at least one therefore completes.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context in which the first of ``SIGNALS`` raises ``KeyboardInterrupt``; others do not."""

    def __init__(self) -> None:
        self._spent = False
        self._deferring = False
        self._pending = False
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Do not raise any more."""
        self._spent = True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise an interrupt at the end of the block, also instead of an error: a program that
        shared our session may have been ended by the same Ctrl-C.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
            if self._pending:
                self._raise()

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        if self._deferring:
            self._pending = True
        else:
            self._raise()

    def _raise(self) -> None:
        if not self._spent:
            self._spent = True
            raise KeyboardInterrupt
