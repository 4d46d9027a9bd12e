"""The supervisor's loop: waits for signals, descriptors and timeouts in one place.

Lives here: ``Loop``, which the supervisor waits with.
Rules: a signal is only noted, and returned by ``wait``, so that no step is interrupted. One loop
per process; a forked child calls ``leave`` first.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Protocol, Self


class Descriptor(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int:
        """The number."""


Ready = Callable[[], object]


class Loop:
    """Waits for ``signals`` and for watched descriptors; a context manager."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = frozenset(signals)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken_by = socket.socketpair()
        self._before: dict[signal.Signals, Any] = {}
        self._caught: set[signal.Signals] = set()

    def __enter__(self) -> Self:
        for end in (self._wake, self._woken_by):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken_by.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in self._signals}
        self._selector.register(self._wake, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._close()

    def leave(self) -> None:
        """In a forked child: detach from the signals and descriptors of the parent's loop.

        The signals have their default effect again; the signal mask stays as it is.
        """
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        self._close()

    def watch(self, what: Descriptor | int, ready: Ready, *, writing: bool = False) -> None:
        """Call ``ready`` when ``what`` is readable or, with ``writing``, writable too; replaces an
        earlier watch of ``what``.
        """
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        try:
            self._selector.modify(what, events, ready)
        except KeyError:
            self._selector.register(what, events, ready)

    def forget(self, what: Descriptor | int) -> None:
        """Stop watching ``what``, if it is watched."""
        try:
            self._selector.unregister(what)
        except (KeyError, ValueError):  # ValueError: closed already
            return

    def wait(self, timeout: float) -> frozenset[signal.Signals]:
        """Wait at most ``timeout`` seconds; call the callbacks that are ready, return the signals
        received.

        Signals that come while callbacks run are returned too. Raises what a callback raises, after
        all the others have run; signals received with it are returned by the next call.
        """
        failed: Exception | None = None
        for key, _ in self._selector.select(max(timeout, 0.0)):
            if key.fileobj is self._wake:
                self._caught.update(self._received())
            elif key.fd in self._selector.get_map():  # an earlier callback may have removed it
                try:
                    key.data()
                except Exception as error:  # noqa: BLE001 - raised below
                    failed = failed or error
        if failed is not None:
            raise failed
        # If all processes get SIGTERM at once, the first may exit while the callbacks run.
        self._caught.update(self._received())
        caught, self._caught = frozenset(self._caught), set()
        return caught

    def _received(self) -> Iterable[signal.Signals]:
        while True:
            try:
                numbers = self._wake.recv(4096)
            except BlockingIOError:
                return
            yield from (signal.Signals(number) for number in set(numbers))

    def _close(self) -> None:
        self._selector.close()
        self._wake.close()
        self._woken_by.close()


def _note(_signal: int, _frame: FrameType | None) -> None:
    """Does nothing: Python writes the number to the wake-up descriptor."""
