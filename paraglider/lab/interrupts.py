"""Handles Ctrl-C (and SIGTERM, SIGHUP) so that the clean-up always runs.

Lives here: ``Interrupts``, and ``uninterrupted`` for code that does not have the object.
Rules: only the first interrupt raises ``KeyboardInterrupt``. Steps that must not be interrupted
(the set-up of a host) run in ``deferred``. After ``ignore`` no interrupt is raised. Of two nested
``finally`` blocks that both clean up, at least one therefore completes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context in which the first of ``SIGNALS`` raises ``KeyboardInterrupt``; others do not."""

    def __init__(self) -> None:
        self._spent = False
        self._deferring = 0  # blocks, one in the other
        self._pending = False
        self._outer: Interrupts | None = None
        self._before: dict[signal.Signals, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        self._outer, _Active.interrupts = _Active.interrupts, self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _Active.interrupts = self._outer
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
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1
            if self._pending and not self._deferring:
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


class _Active:
    """Those in effect: handlers of signals are the process's, and so is this."""

    interrupts: Interrupts | None = None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """As ``deferred`` of the ``Interrupts`` in effect, if there are any; only for moments. Other
    threads than the main one are never interrupted.
    """
    active = _Active.interrupts
    if active is None or threading.current_thread() is not threading.main_thread():
        yield
    else:
        with active.deferred():
            yield
