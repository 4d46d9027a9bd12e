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
    def look(self) -> float:
        """Seconds within which a connection can have become idle."""
        return min(self.established, self.closing)


class Relay:
    """Relays between ``client`` and ``backend``; ``over`` is called once, when both are closed.

    ``first`` is sent to the backend before the client's bytes. The backend's socket is registered
    for events already. Nothing is relayed before ``start``.
    """

    __slots__ = (
        "_ends",
        "_over",
        "_timer",
        "broken",
        "open_ways",
        "seen",
        "shared",
        "tally",
    )

    def __init__(
        self,
        shared: Shared,
        client: socket.socket,
        backend: socket.socket,
        tally: Tally,
        over: Callable[[Relay], None],
        first: bytes = b"",
    ) -> None:
        self.shared = shared
        self.tally = tally
        self.seen = shared.loop.time()
        self.open_ways = 2
        self.broken = False
        self._over = over
        self._timer = shared.loop.call_later(shared.look, self._tick)
        ends = _Client(self, client), _Backend(self, backend)
        ends[0].other, ends[1].other = ends[1], ends[0]
        ends[1].held = memoryview(first)
        self._ends: tuple[_End, ...] = ends

    def start(self) -> None:
        """Start relaying; the bytes that the client has sent so far are relayed at once."""
        client, backend = self._ends
        self.shared.events.hand_over(backend.descriptor, backend.happened)
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
        """True once both sockets are."""
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
                hang_up(end.socket)
            else:
                end.socket.close()
        self._over(self)

    def reset(self) -> None:
        """One end was reset: reset the other."""
        if not self.closed:
            self.tally.resets += 1
            self.close(reset=True)

    def _tick(self) -> None:
        """Check the idle timeout; called as often as the shorter timeout needs."""
        shared = self.shared
        both = self.open_ways == 2 and not self.broken
        left = self.seen + (shared.established if both else shared.closing) - shared.loop.time()
        if left > 0:
            self._timer = shared.loop.call_later(min(left, shared.look), self._tick)
            return
        self.tally.idle += 1
        self.close(reset=True)  # FIN would mean that all data was sent


class _End(ABC):
    """One of the two sockets: what is read here goes to ``other``.

    ``held`` are bytes that this end has yet to take; ``finished`` tells that nothing more is read
    here, ``mask`` what is waited for.
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
        """Wait for what can be done here now; where that is nothing, for no break either, which
        would be reported again and again.
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
            events.watch(self.descriptor, mask, self.happened)
        elif not mask:
            events.forget(self.descriptor)
        else:
            events.change(self.descriptor, mask)

    def happened(self, mask: int) -> None:
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
        relay.seen = relay.shared.loop.time()
        if size == 0:
            self.finished = True
            self.wait()
            other.tell_end()
            return
        try:
            sent = other.socket.send(view[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            other.lose()
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
            self.lose()
            return
        relay.seen = relay.shared.loop.time()
        self.count(sent)
        self.held = self.held[sent:]
        self.wait()
        if self.held:
            return
        if other.finished:
            self.tell_end()
        else:
            other.wait()

    def tell_end(self) -> None:
        """Send FIN to this end: the other has finished, and all its bytes are sent."""
        relay = self.relay
        relay.open_ways -= 1
        if relay.broken:
            relay.reset()
        elif not relay.open_ways:
            relay.close()
        else:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                relay.broken = True  # reading here will come to that end

    def lose(self) -> None:
        """This end takes nothing any more; what it said before is passed on all the same."""
        relay, other = self.relay, self.other
        relay.broken = True
        relay.open_ways -= 1
        if not relay.open_ways:
            relay.reset()
            return
        self.held = memoryview(b"")
        other.finished = True
        self.wait()
        other.wait()


class _Client(_End):
    __slots__ = ()

    def count(self, size: int) -> None:
        self.relay.tally.received += size


class _Backend(_End):
    __slots__ = ()

    def count(self, size: int) -> None:
        self.relay.tally.sent += size


def hang_up(end: socket.socket) -> None:
    """Close the socket with a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
