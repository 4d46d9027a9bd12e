"""Queue I/O on the NetfilterQueue binding (libnetfilter_queue): works wherever that builds.

The binding reads into 4,096 bytes and requests 4,016 bytes of a packet at most, so longer packets
would be truncated, and the verdict would send them on truncated. Here ``run_socket`` of the binding
reads from our own socket object with a larger buffer, and a message on the same netlink port raises
the copy range. Checksums are complete: without NFQA_CFG_F_GSO the kernel computes them, and splits
GSO packets, before it queues (nfnetlink_queue.c, nfqnl_build_packet_message).

Rules: a packet whose handler raises is dropped and counted. The first exception is kept for the
log, the packet's bytes are not.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from typing import Any

from netfilterqueue import NetfilterQueue

from paraglider.core.checksum import COMPLETE
from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.errors import PlatformError
from paraglider.netfilter.queue import messages
from paraglider.netfilter.queue.base import LONGEST_PACKET, Handle
from paraglider.netfilter.queue.proc import Drops, require_free

_BUFFER = 1 << 17
_SOCKET_BUFFER = 16 << 20


class NetfilterQueueIO:
    """One queue, read through the NetfilterQueue binding."""

    name = "netfilterqueue"

    def __init__(
        self,
        number: int,
        length: int,
        copy: int = LONGEST_PACKET,
        fail_open: bool = False,
        merged: bool = True,
    ) -> None:
        self.number = number
        self.packets = 0
        self.batches = 0
        self.faults = 0
        self.first_fault: Exception | None = None
        self._handle: Handle = _drop_all
        self._limit = 0
        self._taken = 0
        self._now = 0.0
        require_free((number,))
        try:
            self._queue = NetfilterQueue()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a smaller buffer is no fault
                self._queue.bind(number, self._on_packet, max_len=length, sock_len=_SOCKET_BUFFER)
        except OSError as error:
            raise PlatformError(
                f"the kernel refuses queue {number}: {error}",
                "see that it has NFQUEUE and that this process has CAP_NET_ADMIN",
            ) from error
        self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
        self._socket.setblocking(False)
        self._flags = messages.NFQA_CFG_F_FAIL_OPEN if fail_open else 0
        self.copy(copy)
        self.drops = Drops(number)

    @property
    def refused(self) -> int:
        """Always 0: the binding does not read the kernel's answers to its verdicts."""
        return 0

    def fileno(self) -> int:
        """See ``base.Queue.fileno``."""
        return self._socket.fileno()

    def read(self, handle: Handle, limit: int, now: float) -> int:
        """See ``base.Queue.read``."""
        self._handle = handle
        self._limit = limit
        self._taken = 0
        self._now = now
        self._queue.run_socket(self)
        return self._taken

    def copy(self, size: int) -> None:
        """See ``base.Queue.copy``."""
        self._socket.send(messages.configure(self.number, size, self._flags))

    def close(self) -> None:
        """See ``base.Queue.close``."""
        self.drops.refresh()
        self.drops.close()
        self._queue.unbind()
        self._socket.close()
        del self._queue  # the binding closes its own socket when it goes

    def recv(self, _size: int) -> bytes:
        """Return one complete netlink message. ``run_socket`` calls this in place of
        ``socket.recv``; it returns on EAGAIN and continues after ENOBUFS (``Drops`` counts those).
        """
        if self._taken >= self._limit:
            raise BlockingIOError(errno.EAGAIN, "the round is over")
        message = self._socket.recv(_BUFFER)
        self._taken += 1
        return message

    def _on_packet(self, packet: Any) -> None:
        self.packets += 1
        self.batches += 1  # the binding reads packets one by one
        try:
            buf = bytearray(packet.get_payload())
            verdict = self._handle(buf, 0, len(buf), COMPLETE, self._now)
        except Exception as fault:  # noqa: BLE001 - the packet needs a verdict in any case
            self.faults += 1
            self.first_fault = self.first_fault or fault
            verdict = DROP
        if verdict == REWRITTEN:
            packet.set_payload(bytes(buf))
            packet.accept()
        elif verdict == PASS:
            packet.set_mark(0)  # not ours: the worker's mark must not open the host's filter
            packet.accept()
        elif verdict == DROP:
            packet.drop()
        else:  # MARK
            packet.set_mark(verdict >> 8)
            packet.accept()


def _drop_all(_buf: bytearray, _at: int, _length: int, _checksum: int, _now: float) -> int:
    """Drop the packet: ``read`` has not been called yet."""
    return DROP
