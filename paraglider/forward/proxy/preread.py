"""Waits for the ClientHello of an accepted client, for services with routes.

The bytes are looked at (MSG_PEEK, recv(2)) and stay in the socket, so the relay finds them where it
finds those of any client: after the header of the PROXY protocol, which needs a backend first. An
edge-triggered event (EPOLLET, epoll(7)) tells of further bytes.

Rules: ends with the first byte that is not of a ClientHello, at the end of the stream, after
``core.client_hello.MOST`` bytes, or after the time given. In each of these cases the service's own
backends get the connection: protocols whose server speaks first need that.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from paraglider.core.client_hello import MOST, Hello, HelloReader
from paraglider.forward.proxy.events import BROKEN, ENDED, NEWS, READ
from paraglider.forward.proxy.relay import Shared, abort

_AWAITED: Final = READ | ENDED | NEWS


class Preread:
    """Looks at the first bytes of ``client``, which has connected to ``service`` with the flow key
    ``key``; calls ``on_done`` once, with ``hello`` or None if there is none within ``seconds``.

    If the client has gone, it is closed, and ``client`` is None.
    """

    __slots__ = (
        "_on_done",
        "_reader",
        "_seen",
        "_shared",
        "_timer",
        "_watched",
        "client",
        "key",
        "service",
    )

    def __init__(
        self,
        shared: Shared,
        service: str,
        client: socket.socket,
        key: bytes,
        seconds: float,
        on_done: Callable[[Preread], None],
    ) -> None:
        self.service = service
        self.client: socket.socket | None = client
        self.key = key
        self._on_done = on_done
        self._reader = HelloReader()
        self._seen = 0
        self._shared = shared
        self._watched = False
        self._timer = shared.loop.call_later(seconds, self._finish)

    @property
    def hello(self) -> Hello | None:
        """The ClientHello, None if there is none."""
        return self._reader.hello

    def start(self) -> None:
        """Look at what has come already, and then wait."""
        client = self.client
        if client is not None and not self._look(client):
            self._watched = True
            self._shared.events.watch(client.fileno(), _AWAITED, self._on_event)

    def give_up(self) -> None:
        """Give up, and reset the client."""
        self._finish(reset=True)

    def _on_event(self, mask: int) -> None:
        client = self.client
        if client is not None and not self._look(client) and mask & (ENDED | BROKEN):
            self._finish()

    def _look(self, client: socket.socket) -> bool:
        """Look at the bytes that are there; returns whether this was the end."""
        view = self._shared.view[:MOST]
        try:
            size = client.recv_into(view, MOST, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            self._finish(reset=True)
            return True
        seen, self._seen = self._seen, size
        if size and not self._reader.feed(view[seen:size]):
            return False
        self._finish()  # without bytes, the stream has ended
        return True

    def _finish(self, *, reset: bool = False) -> None:
        client = self.client
        if client is None:
            return
        self._timer.cancel()
        if self._watched:
            self._shared.events.forget(client.fileno(), closing=reset)
        if reset:
            self.client = None
            abort(client)
        self._on_done(self)
