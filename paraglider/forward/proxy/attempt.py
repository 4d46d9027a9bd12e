"""Connects an accepted client to a backend, with retries at other backends.

The balancer chooses; if a backend refuses, is unreachable, or does not answer in time, the next one
is tried, each ready one once. The client notices only the delay: its bytes wait in the kernel. If
no backend accepts, the client is reset.

Rules: a flow is counted for its backend, and holds the client's affinity, from the choice on.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.forward.proxy.counts import Tally
from paraglider.forward.proxy.events import BROKEN, WRITE
from paraglider.forward.proxy.relay import Shared, abort

_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}  # by the length of an address


class Front:
    """The part of a service that attempts need.

    ``choose`` is the balancer's method; ``tallies`` and ``hosts`` contain every backend of the
    service, ``connect`` is the connect timeout in seconds.
    """

    __slots__ = ("choose", "connect", "family", "hosts", "service", "tallies")

    def __init__(
        self,
        service: VirtualService,
        choose: Callable[[VirtualService, NewFlow, Callable[[Backend], bool]], Backend | None],
        connect: float,
    ) -> None:
        self.service = service
        self.choose = choose
        self.connect = connect
        self.family = _FAMILIES[len(service.vip)]
        self.tallies = {backend: Tally() for backend in service.pool.backends}
        self.hosts = {b: socket.inet_ntop(self.family, b.address) for b in service.pool.backends}

    def assign(self, backend: Backend, client: bytes) -> None:
        """Assign a flow of ``client`` to ``backend``."""
        backend.flows += 1
        backend.conns += 1
        if self.service.affinity is not None:
            self.service.affinity.hold(client, backend)
            self.service.affinity.confirm(client)  # the kernel has completed the handshake

    def release(self, backend: Backend, client: bytes, now: float) -> None:
        """End a flow of ``client`` to ``backend``."""
        backend.flows -= 1
        if self.service.affinity is not None:
            self.service.affinity.release(client, now)


class Attempt:
    """Connects ``client``, whose connection is ``flow``, to a backend; calls ``on_done`` once. On
    success ``backend`` and ``socket`` are set, and the socket is still watched for writing;
    otherwise both are None, and the client has been reset.
    """

    __slots__ = (
        "_on_done",
        "_shared",
        "_timer",
        "_tried",
        "backend",
        "client",
        "flow",
        "front",
        "socket",
    )

    def __init__(
        self,
        shared: Shared,
        front: Front,
        client: socket.socket,
        flow: NewFlow,
        on_done: Callable[[Attempt], None],
    ) -> None:
        self.front = front
        self.client = client
        self.flow = flow
        self.backend: Backend | None = None
        self.socket: socket.socket | None = None
        self._shared = shared
        self._on_done = on_done
        self._tried: dict[Backend, None] = {}  # in the order they were tried
        self._timer = shared.loop.call_later(front.connect, self._on_timeout)

    def start(self) -> None:
        """Try the backends in turn until a connection attempt is in progress."""
        front = self.front
        while True:
            backend = front.choose(front.service, self.flow, self._tried.__contains__)
            if backend is None or backend in self._tried:
                break
            if self._tried:
                front.tallies[next(reversed(self._tried))].retried += 1
            self._tried[backend] = None
            self.backend = backend
            front.assign(backend, self.flow.client)
            try:
                self.socket = self._connect(backend)
            except OSError as error:
                self._close_current()
                if error.errno in _OURS:
                    break
                front.tallies[backend].refused += 1
            else:
                return
        self.give_up()

    def give_up(self) -> None:
        """Give up, and reset the client."""
        self._timer.cancel()
        if self.backend is not None:
            self._close_current()
        abort(self.client)
        self._on_done(self)

    def _connect(self, backend: Backend) -> socket.socket:
        """A socket that connects to ``backend``; raises OSError."""
        front = self.front
        end = socket.socket(front.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = end.connect_ex((front.hosts[backend], backend.port or self.flow.port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
            self._shared.events.watch(end.fileno(), WRITE, self._on_connect)
        except OSError:
            end.close()
            raise
        return end

    def _on_connect(self, mask: int) -> None:
        """The backend has accepted or refused."""
        if mask & BROKEN and self.backend is not None:
            self.front.tallies[self.backend].refused += 1
            self._next()
            return
        self._timer.cancel()
        self._on_done(self)

    def _on_timeout(self) -> None:
        """The backend has not answered in time."""
        if self.backend is not None:
            self.front.tallies[self.backend].timeouts += 1
        self._next()

    def _next(self) -> None:
        self._close_current()
        self._timer.cancel()
        self._timer = self._shared.loop.call_later(self.front.connect, self._on_timeout)
        self.start()

    def _close_current(self) -> None:
        """Close the connection to the present backend, which failed for this flow."""
        if self.socket is not None:
            self._shared.events.forget(self.socket.fileno(), closing=True)
            self.socket.close()
            self.socket = None
        if self.backend is not None:
            self.front.release(self.backend, self.flow.client, self._shared.loop.time())
            self.backend = None


#: errors of this host, which has run out of a resource; not the backend's
_OURS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
