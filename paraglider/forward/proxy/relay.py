"""A relay: two connected sockets, and the bytes between them, until both ends have finished.

An end is read only while the other accepts its bytes: bytes that it does not accept at once are
held, and the first is not read until they are sent (back-pressure), so at most one read is held per
direction. When an end has finished, the other gets FIN after the last byte (half-close), and the
other direction continues. A reset is relayed as a reset, after the bytes received before it.

Rules: one buffer per worker for all reads: bytes stay in it only during a call. A closed relay
leaves no reference cycle.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from paraglider.forward.proxy.counts import Tally
from paraglider.forward.proxy.events import BROKEN, READ, WRITE, SocketEvents

#: bytes of one read, and so most bytes held per direction
BUFFER: Final = 1 << 17
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time: close(2) sends RST


@dataclass(frozen=True, slots=True)
class Shared:
    """State shared by all connections of a worker; the idle timeout in seconds is ``established``
    while both directions are open, and ``closing`` once one of them has ended.
    """

    loop: asyncio.AbstractEventLoop
    events: SocketEvents
    established: float
    closing: float
    view: memoryview = field(default_factory=lambda: memoryview(bytearray(BUFFER)))

    @property
    def idle_check_interval(self) -> float:
        """Seconds between two checks of the idle timeout: the shorter timeout."""
        return min(self.established, self.closing)


class Relay:
    """Relays between ``client`` and ``backend``; calls ``on_close`` once, when both are closed.

    ``first`` is sent to the backend before the client's bytes. The backend's socket is registered
    for events already. Nothing is relayed before ``start``.
    """

    __slots__ = (
        "_ends",
        "_on_close",
        "_timer",
        "broken",
        "last_active",
        "open_directions",
        "shared",
        "tally",
    )

    def __init__(
        self,
        shared: Shared,
        client: socket.socket,
        backend: socket.socket,
        tally: Tally,
        on_close: Callable[[Relay], None],
        first: bytes = b"",
    ) -> None:
        self.shared = shared
        self.tally = tally
        self.last_active = shared.loop.time()
        self.open_directions = 2
        self.broken = False
        self._on_close = on_close
        self._timer = shared.loop.call_later(shared.idle_check_interval, self._tick)
        ends = _ClientEnd(self, client), _BackendEnd(self, backend)
        ends[0].other, ends[1].other = ends[1], ends[0]
        ends[1].held = memoryview(first)
        self._ends: tuple[_End, ...] = ends

    def start(self) -> None:
        """Start relaying; the bytes that the client has sent so far are relayed at once."""
        client, backend = self._ends
        self.shared.events.set_handler(backend.descriptor, backend.on_event)
        backend.mask = WRITE
        if backend.held:
            backend.send_held()
        else:
            backend.wait()
        client.wait()
        if client.mask & READ:
            client.read()

    @property
    def closed(self) -> bool:
        """Whether both sockets are closed."""
        return not self._ends

    def close(self, *, reset: bool = False) -> None:
        """Close both sockets: each peer gets FIN, or with ``reset`` RST."""
        ends, self._ends = self._ends, ()
        if not ends:
            return
        self._timer.cancel()
        for end in ends:
            end.mask = 0
            self.shared.events.forget(end.descriptor, closing=True)
            del end.other  # avoids a reference cycle
            if reset:
                abort(end.socket)
            else:
                end.socket.close()
        self._on_close(self)

    def reset(self) -> None:
        """Reset both ends: one of them was reset by its peer."""
        if not self.closed:
            self.tally.resets += 1
            self.close(reset=True)

    def _tick(self) -> None:
        """Check the idle timeout; called as often as the shorter timeout needs."""
        shared = self.shared
        both = self.open_directions == 2 and not self.broken
        left = (
            self.last_active + (shared.established if both else shared.closing) - shared.loop.time()
        )
        if left > 0:
            self._timer = shared.loop.call_later(min(left, shared.idle_check_interval), self._tick)
            return
        self.tally.idle += 1
        self.close(reset=True)  # FIN would mean that all data was sent


class _End(ABC):
    """One of the two sockets; bytes read from it are sent to ``other``.

    ``held`` are bytes to be sent to this end; ``finished`` is true when nothing more is read from
    it; ``mask`` are the awaited events.
    """

    __slots__ = ("descriptor", "finished", "held", "mask", "other", "relay", "socket")

    def __init__(self, relay: Relay, end: socket.socket) -> None:
        self.relay = relay
        self.socket = end
        self.descriptor = end.fileno()
        self.other = self
        self.held = memoryview(b"")
        self.finished = False
        self.mask = 0

    @abstractmethod
    def count(self, size: int) -> None:
        """Count the bytes sent to this end."""

    def wait(self) -> None:
        """Wait for the events that this end can handle now. Without any, the descriptor is removed,
        because epoll reports a broken connection at every wait.
        """
        if self.relay.closed:
            return
        mask = WRITE if self.held else 0
        if not self.finished and not self.other.held:
            mask |= READ
        before, self.mask = self.mask, mask
        if mask == before:
            return
        events = self.relay.shared.events
        if not before:
            events.watch(self.descriptor, mask, self.on_event)
        elif not mask:
            events.forget(self.descriptor)
        else:
            events.change(self.descriptor, mask)

    def on_event(self, mask: int) -> None:
        """Handle an event."""
        if self.mask & WRITE and mask & (WRITE | BROKEN):
            self.send_held()
        if self.mask & READ and mask & (READ | BROKEN) and not self.relay.closed:
            self.read()

    def read(self) -> None:
        """Read bytes, or the end of the stream."""
        relay, other = self.relay, self.other
        view = relay.shared.view
        try:
            size = self.socket.recv_into(view)
        except BlockingIOError:
            return
        except OSError:
            relay.reset()
            return
        relay.last_active = relay.shared.loop.time()
        if size == 0:
            self.finished = True
            self.wait()
            other.shutdown()
            return
        try:
            sent = other.socket.send(view[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            other.write_failed()
            return
        other.count(sent)
        if sent < size:
            other.held = memoryview(bytes(view[sent:size]))
            self.wait()
            other.wait()

    def send_held(self) -> None:
        """Send the held bytes to this end."""
        relay, other = self.relay, self.other
        try:
            sent = self.socket.send(self.held)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.write_failed()
            return
        relay.last_active = relay.shared.loop.time()
        self.count(sent)
        self.held = self.held[sent:]
        self.wait()
        if self.held:
            return
        if other.finished:
            self.shutdown()
        else:
            other.wait()

    def shutdown(self) -> None:
        """Send FIN to this end: the other has finished, and all its bytes are sent."""
        relay = self.relay
        relay.open_directions -= 1
        if relay.broken:
            relay.reset()
        elif not relay.open_directions:
            relay.close()
        else:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                relay.broken = True  # the next read fails and ends the relay

    def write_failed(self) -> None:
        """A write failed: stop sending to this end; bytes received from it are still relayed."""
        relay, other = self.relay, self.other
        relay.broken = True
        relay.open_directions -= 1
        if not relay.open_directions:
            relay.reset()
            return
        self.held = memoryview(b"")
        other.finished = True
        self.wait()
        other.wait()


class _ClientEnd(_End):
    __slots__ = ()

    def count(self, size: int) -> None:
        self.relay.tally.received += size


class _BackendEnd(_End):
    __slots__ = ()

    def count(self, size: int) -> None:
        self.relay.tally.sent += size


def abort(end: socket.socket) -> None:
    """Close the socket with a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
