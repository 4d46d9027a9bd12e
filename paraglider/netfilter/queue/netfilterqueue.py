"""Queue I/O on the NetfilterQueue binding (libnetfilter_queue): works wherever that builds.

The binding reads into 4,096 bytes and asks the kernel for no more than 4,016 of a packet, so long
packets would arrive cut, and a verdict would cut them for good. Here its ``run_socket`` reads
through a socket of ours with room for any packet, and the copy range is raised behind it, over
the same netlink port. Checksums are complete: without NFQA_CFG_F_GSO the kernel finishes them,
and splits GSO packets, before it queues (nfnetlink_queue.c, nfqnl_build_packet_message).

Rules: a packet whose handling raises is dropped and counted, and the first such fault is kept for
the log; the packet's bytes are not.
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
        self, number: int, length: int, copy: int = LONGEST_PACKET, fail_open: bool = False
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
        flags = messages.NFQA_CFG_F_FAIL_OPEN if fail_open else 0
        self._socket.send(messages.settle(number, copy, flags))
        self.drops = Drops(number)

    @property
    def refused(self) -> int:
        """Always 0: the binding leaves the answers to its verdicts unread."""
        return 0

    def fileno(self) -> int:
        """See ``base.Queue.fileno``."""
        return self._socket.fileno()

    def take(self, handle: Handle, limit: int, now: float) -> int:
        """See ``base.Queue.take``."""
        self._handle = handle
        self._limit = limit
        self._taken = 0
        self._now = now
        self._queue.run_socket(self)
        return self._taken

    def close(self) -> None:
        """See ``base.Queue.close``."""
        self.drops.refresh()
        self.drops.close()
        self._queue.unbind()
        self._socket.close()
        del self._queue  # the binding closes its own socket when it goes

    def recv(self, _size: int) -> bytes:
        """One netlink message, whole; called by ``run_socket`` in place of a socket's own, which
        returns on EAGAIN and goes on after ENOBUFS (the kernel's own count tells more).
        """
        if self._taken >= self._limit:
            raise BlockingIOError(errno.EAGAIN, "the round is over")
        message = self._socket.recv(_BUFFER)
        self._taken += 1
        return message

    def _on_packet(self, packet: Any) -> None:
        self.packets += 1
        self.batches += 1  # the binding knows no larger ones
        try:
            buf = bytearray(packet.get_payload())
            verdict = self._handle(buf, 0, len(buf), COMPLETE, self._now)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the packet needs a verdict
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
    """Before ``take`` a packet can only be dropped."""
    return DROP
