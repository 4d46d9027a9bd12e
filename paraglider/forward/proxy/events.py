"""Events on the sockets of connections: the worker's own epoll set, which its loop watches.

The event loop's ``add_reader`` costs some fourteen system calls per connection (libuv probes every
new descriptor, and makes one call for every change); this costs four.

Rules: level-triggered (epoll(7)), unless ``NEWS`` is awaited. A socket is closed after ``forget``.
An exception of a handler is an internal error: it is passed to the loop's exception handler, and
the other events of the round are handled.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
#: always reported: the connection is broken, or both directions have ended
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
#: the peer sends no more; reported where it is awaited
ENDED: Final = select.EPOLLRDHUP
#: awaited with READ: only bytes that are new are an event
NEWS: Final = select.EPOLLET

#: called with those of READ, WRITE, ENDED and BROKEN that hold for its descriptor
Handler = Callable[[int], None]


class SocketEvents:
    """Calls the handler of a descriptor when an awaited event occurs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        # Events of a descriptor must not reach the next socket with the same number.
        self._new: set[int] = set()
        loop.add_reader(self._epoll.fileno(), self._dispatch)

    def __len__(self) -> int:
        """The number of watched descriptors."""
        return len(self._handlers)

    def watch(self, descriptor: int, mask: int, handler: Handler) -> None:
        """Watch ``descriptor``, which is new, for ``mask``."""
        self._epoll.register(descriptor, mask)
        self._handlers[descriptor] = handler
        self._new.add(descriptor)

    def change(self, descriptor: int, mask: int) -> None:
        """Watch for ``mask`` from now on."""
        self._epoll.modify(descriptor, mask)

    def set_handler(self, descriptor: int, handler: Handler) -> None:
        """Replace the handler of a watched descriptor by ``handler``."""
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int, *, closing: bool = False) -> None:
        """Stop watching; with ``closing`` the socket is closed next, which removes it from
        epoll.
        """
        if self._handlers.pop(descriptor, None) is not None and not closing:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the epoll set."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _dispatch(self) -> None:
        handlers, new = self._handlers, self._new
        found = self._epoll.poll(0)
        new.clear()
        for descriptor, mask in found:
            handler = handlers.get(descriptor)
            if handler is None or descriptor in new:
                continue
            try:
                handler(mask)
            except Exception as error:  # noqa: BLE001 - one connection's fault is not the others'
                context = {"message": "a connection's handler failed", "exception": error}
                self._loop.call_exception_handler(context)
