"""The supervisor's messages with its processes: received in slices, sent when there is room.

A process that sends an invalid message, or does not read, is killed and replaced. One that sends
too many messages is throttled (``inbox``).

Lives here: ``Exchange``.
Rules: no message of a process, and no failing handler of one, ends the supervisor.
"""

from __future__ import annotations

import signal
from typing import Any, Protocol

from paraglider.daemon import log
from paraglider.daemon.ipc import (
    EndpointClosedError,
    EndpointError,
    Frame,
    InvalidMessageError,
    IpcEndpoint,
    Kind,
)
from paraglider.daemon.messages import Message
from paraglider.daemon.processes.child import Child, kill
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.loop import Loop


class Receiver(Protocol):
    """Handles messages."""

    def on_message(self, child: Child, frame: Frame) -> None:
        """Called when ``child`` has sent ``frame``."""


class Exchange:
    """Sends to processes and receives from them, on ``loop``."""

    def __init__(self, loop: Loop, receiver: Receiver, faults: Faults) -> None:
        self._loop = loop
        self._receiver = receiver
        self._faults = faults
        self._log: Any = log.logger()

    def open(self, child: Child, endpoint: IpcEndpoint) -> None:
        """Exchange messages with ``child`` by ``endpoint``; raises OSError."""
        child.endpoint = endpoint
        self._listen(child)

    def close(self, child: Child) -> None:
        """Stop exchanging messages with ``child``."""
        if child.endpoint is not None:
            self._loop.forget(child.endpoint)
            child.endpoint.close()
            child.endpoint = None

    def send(
        self, child: Child, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0
    ) -> None:
        """Send ``message``; a process that cannot be reached is killed. Does nothing while it is
        not running: its successor inherits the state.
        """
        if child.endpoint is None:
            return
        try:
            child.endpoint.send(message, kind, number)
        except EndpointError as error:
            self._fail(child, error)
        else:
            self._listen(child)

    def resume(self, child: Child) -> None:
        """Receive from ``child`` again after throttling."""
        self._handle(child)

    def _listen(self, child: Child) -> None:
        endpoint = child.endpoint
        if endpoint is None:
            return
        if child.inbox.muted is None:
            self._loop.watch(endpoint, lambda: self._transfer(child), writing=endpoint.pending)
        else:
            self._loop.forget(endpoint)

    def _transfer(self, child: Child) -> None:
        """Receive from ``child``, and send what is pending."""
        if child.endpoint is None:
            return
        try:
            frames = child.endpoint.receive()
            child.endpoint.flush()
        except EndpointError as error:
            self._fail(child, error)
            return
        child.inbox.add(frames)
        self._handle(child)

    def _handle(self, child: Child) -> None:
        """Handle the messages of ``child``, as far as its time slice allows."""
        endpoint = child.endpoint

        def handle(frame: Frame) -> None:
            if child.endpoint is endpoint:  # else it was killed meanwhile
                with self._faults.contained(f"a message from the {child.spec.role}"):
                    self._receiver.on_message(child, frame)

        if child.inbox.handle(handle):
            self._log.warning(
                f"{child.spec.role}: too many messages, throttled", **child.spec.labels()
            )
        self._listen(child)

    def _fail(self, child: Child, error: EndpointError) -> None:
        """Kill ``child``, which is useless without its endpoint. If it has closed its end, it is
        exiting by itself.
        """
        self.close(child)
        if isinstance(error, EndpointClosedError):
            return
        role, labels = child.spec.role, child.spec.labels()
        if isinstance(error, InvalidMessageError):
            self._log.error(f"invalid message from the {role}, killed", **labels, error=str(error))
        else:
            self._log.error(f"{role}: cannot be reached, killed", **labels, error=str(error))
        kill(child, signal.SIGKILL)
