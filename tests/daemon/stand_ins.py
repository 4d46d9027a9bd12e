"""Stand-ins: processes that only record their messages, and a real process under a test's hand.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import os
import signal
from asyncio import unix_events
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from waiting import exit_code

from paraglider.config.steps import Steps
from paraglider.daemon.ipc import IpcEndpoint, Kind, encode
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, Message
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import READY

T = TypeVar("T")


def in_steps(value: Callable[[], T], steps: int = 1) -> Callable[[], Steps[T]]:
    """A function as ``Settings.reading`` that reads ``value()`` in ``steps`` steps."""

    def reading() -> Steps[T]:
        for _ in range(steps - 1):
            yield
        return value()

    return reading


_others: list[IpcEndpoint] = []


def supervisors_end(role: str) -> IpcEndpoint:
    """The supervisor's end of an endpoint; the other end stays open."""
    ours, theirs = IpcEndpoint.pair(FROM_ROLE[role], TO_ROLE[role])
    _others.append(theirs)
    return ours


class RecordedProcesses:
    """In place of ``ProcessManager``: ``children``, whose messages go to ``received``. A message
    that the role does not accept fails the test.
    """

    def __init__(self, *children: Child) -> None:
        self.children = children

    def __iter__(self) -> Iterator[Child]:
        return iter(self.children)

    def send(
        self,
        child: Child,
        message: Message | bytes,
        kind: Kind = Kind.MESSAGE,
        number: int = 0,
    ) -> None:
        """See ``ProcessManager``."""
        body = message if isinstance(message, bytes) else encode(message)
        parsed = TO_ROLE[child.spec.role].validate_json(body)
        assert isinstance(parsed, Message)
        self.received(child, parsed, body, number)

    def received(self, child: Child, message: Message, body: bytes, number: int) -> None:
        """The message ``number``, as the process parses it, and as it was sent."""

    def wake(self, child: Child) -> None:
        """See ``ProcessManager``."""

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""


def signalled_while_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM comes to each process whose asyncio loop has just closed what signals wake it by."""
    kind: Any = unix_events._UnixSelectorEventLoop  # type: ignore[attr-defined]
    close = kind._close_self_pipe

    def closed(loop: Any) -> None:
        close(loop)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(kind, "_close_self_pipe", closed)


class ForkedProcess:
    """A process of ``role`` that runs ``life(endpoint, report, parent)`` and has become ready;
    ``endpoint`` is the supervisor's end.
    """

    def __init__(self, role: str, life: Callable[[IpcEndpoint, int, int], int]) -> None:
        self.endpoint, theirs = IpcEndpoint.pair(FROM_ROLE[role], TO_ROLE[role])
        reading, writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.close(reading)
                self.endpoint.close()
                status = life(theirs, writing, parent)
            finally:
                os._exit(status)
        os.close(writing)
        theirs.close()
        with os.fdopen(reading, "rb") as report:
            assert report.read() == READY

    def ended(self) -> int:
        """The exit code, once it has ended."""
        pid, self.pid = self.pid, 0
        return exit_code(pid)

    def close(self) -> None:
        """End it, if it still runs."""
        self.endpoint.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
