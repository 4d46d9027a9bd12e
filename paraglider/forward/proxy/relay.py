"""A relay: two connected sockets, and the bytes between them, until both ends have finished.

An end is read only while the other takes its bytes: what it does not take at once is held, and the
first is not read before that is gone (back-pressure), so one read is all that is held a way. When
an end has finished, the other is told so after its last byte (half-close), and the other way goes
on. A reset is passed on as one; what came before it has been passed on to the kernel by then.

Rules: one buffer a worker for all reads: bytes stay in it no longer than a call. A closed relay
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

#: bytes of one read, and so what a way may hold at most
BUFFER: Final = 1 << 17
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, no time: close(2) sends RST


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a worker have in common; idle seconds are ``established`` while both
    ways are open, and ``closing`` once one of them has ended.
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
    """Carries between ``client`` and ``backend``; ``over`` is called once, when both are closed.

    ``first`` goes to the backend ahead of the client's bytes. The backend's socket is among the
    events already, of whoever connected it. Nothing is carried before ``start``.
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
        """Begin to carry: what the client has sent by now goes at once."""
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
        """Close both sockets: each peer sees the end, or with ``reset`` a reset."""
        ends, self._ends = self._ends, ()
        if not ends:
            return
        self._timer.cancel()
        for end in ends:
            end.mask = 0
            self.shared.events.forget(end.descriptor, closing=True)
            del end.other  # each would keep the other for ever
            if reset:
                hang_up(end.socket)
            else:
                end.socket.close()
        self._over(self)

    def reset(self) -> None:
        """One end has broken off: so does the other."""
        if not self.closed:
            self.tally.resets += 1
            self.close(reset=True)

    def _tick(self) -> None:
        """Look whether the relay is idle; comes as often as it could be after an end."""
        shared = self.shared
        both = self.open_ways == 2 and not self.broken
        left = self.seen + (shared.established if both else shared.closing) - shared.loop.time()
        if left > 0:
            self._timer = shared.loop.call_later(min(left, shared.look), self._tick)
            return
        self.tally.idle += 1
        self.close(reset=True)  # an orderly end would say that all has been told


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
        """So many bytes have been sent to this end."""

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
        """What was waited for has come."""
        if self.mask & WRITE and mask & (WRITE | BROKEN):
            self.send_held()
        if self.mask & READ and mask & (READ | BROKEN) and not self.relay.closed:
            self.read()

    def read(self) -> None:
        """There are bytes here, or an end."""
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
        """This end may take what is held for it."""
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
        """The other end has finished, and this one has all that it said."""
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
