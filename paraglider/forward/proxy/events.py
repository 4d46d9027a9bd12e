"""Events on the sockets of connections: an epoll set of the worker's own, which its loop watches.

The event loop's own ``add_reader`` costs a connection some fourteen system calls (libuv tries every
new descriptor out, and asks anew for every change); here it is four.

Rules: level-triggered (epoll(7)). A socket is closed after ``forget``. A handler that raises is a
fault of ours: it is told to the loop, and the others of the round go on.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
#: reported whether asked for or not: the connection is broken, or both of its ways have ended
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP

#: told which of READ, WRITE and BROKEN hold for its descriptor
Handler = Callable[[int], None]


class SocketEvents:
    """Calls the handler of a descriptor when something it waits for has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        # What was found of a descriptor does not concern the next socket that has its number.
        self._new: set[int] = set()
        loop.add_reader(self._epoll.fileno(), self._round)

    def __len__(self) -> int:
        """Descriptors that are waited for."""
        return len(self._handlers)

    def watch(self, descriptor: int, mask: int, handler: Handler) -> None:
        """Wait for ``mask`` on ``descriptor``, which is new here."""
        self._epoll.register(descriptor, mask)
        self._handlers[descriptor] = handler
        self._new.add(descriptor)

    def change(self, descriptor: int, mask: int) -> None:
        """Wait for ``mask`` from now on."""
        self._epoll.modify(descriptor, mask)

    def hand_over(self, descriptor: int, handler: Handler) -> None:
        """Tell ``handler`` from now on of what is waited for already."""
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int, *, closing: bool = False) -> None:
        """Wait no more; with ``closing`` the socket is closed next, which is enough for epoll."""
        if self._handlers.pop(descriptor, None) is not None and not closing:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _round(self) -> None:
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
