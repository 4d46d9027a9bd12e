"""Queue I/O on an AF_NETLINK socket: many packets a round, unsplit GSO packets, no copy.

``batch`` reads packets and writes verdicts; this module has the socket and applies the verdicts.

With NFQA_CFG_F_GSO the kernel neither splits a packet nor completes its checksum before it queues.
NFQA_SKB_INFO gives the state of the transport checksum: bit 0, the field holds the pseudo-header's
sum only; bit 1, the packet is split later and the kernel computes the sum of each part. We complete
the checksum of a packet with bit 0 alone, because a rewritten packet loses that state in the kernel
(nfnetlink_queue.c, nfqnl_mangle: CHECKSUM_NONE).

Rules: every packet gets a verdict, also when the handler raises. A verdict that the kernel refuses
comes back as an NLMSG_ERROR message and is counted.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.errors import PlatformError
from paraglider.netfilter.nfnetlink import NETLINK_NETFILTER
from paraglider.netfilter.queue import messages
from paraglider.netfilter.queue.base import LONGEST_PACKET, Handle
from paraglider.netfilter.queue.batch import SLOT, open_batch
from paraglider.netfilter.queue.proc import Drops, require_free

_RECEIVE_BUFFER: Final = 64 << 20
_SEND_BUFFER: Final = 16 << 20
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32
_SOL_NETLINK: Final = 270
_NETLINK_NO_ENOBUFS: Final = 5
_SECOND: Final = struct.pack("@ll", 1, 0)  # struct timeval


class NetlinkQueueIO:
    """One queue, read through a netlink socket."""

    name = "netlink"

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
        self._flags = messages.NFQA_CFG_F_GSO if merged else 0
        self._flags |= messages.NFQA_CFG_F_FAIL_OPEN if fail_open else 0
        self._socket, self._early = _connect(number, length, copy, self._flags)
        self._batch = open_batch(self._socket, number)
        self.drops = Drops(number)

    @property
    def refused(self) -> int:
        """Verdicts that the kernel refused."""
        return self._batch.refused

    def fileno(self) -> int:
        """See ``base.Queue.fileno``."""
        return self._socket.fileno()

    def read(self, handle: Handle, limit: int, now: float) -> int:
        """See ``base.Queue.read``."""
        batch = self._batch
        if self._early:
            for message in self._early:
                batch.load(message)
                self._round(handle, 1, now)
            self._early.clear()
        count = batch.receive(limit)
        if count:
            self._round(handle, count, now)
        return count

    def copy(self, size: int) -> None:
        """See ``base.Queue.copy``."""
        self._socket.send(messages.configure(self.number, size, self._flags))

    def close(self) -> None:
        """See ``base.Queue.close``."""
        self.drops.refresh()
        self.drops.close()
        self._socket.close()

    def _round(self, handle: Handle, count: int, now: float) -> None:
        """Give a verdict for each of the ``count`` messages in the arena."""
        self.packets += count
        self.batches += 1
        batch = self._batch
        arena = batch.arena
        for index in range(count):
            if not batch.open(index):
                continue
            try:
                verdict = handle(arena, batch.payload, batch.length, batch.checksum, now)
            except Exception as fault:  # noqa: BLE001 - the packet needs a verdict in any case
                self.faults += 1
                self.first_fault = self.first_fault or fault
                verdict = DROP
            if verdict == REWRITTEN:
                batch.rewritten()
            elif verdict == PASS:
                batch.marked(0)  # not ours: the worker's mark must not open the host's filter
            elif verdict == DROP:
                batch.dropped()
            else:  # MARK
                batch.marked(verdict >> 8)
        batch.flush()


def _connect(number: int, length: int, copy: int, flags: int) -> tuple[socket.socket, list[bytes]]:
    """A socket that reads queue ``number``, and the packet messages that arrived before the
    kernel's acknowledgement. Raises as ``open_queue`` does.
    """
    require_free((number,))
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    early: list[bytes] = []
    try:
        sock.bind((0, 0))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SECOND)
        sock.send(messages.bind(number, length, copy, flags))
        while (refusal := messages.answer(reply := sock.recv(SLOT))) < 0:
            early.append(reply)
        if refusal:
            raise OSError(refusal, os.strerror(refusal))
    except OSError as error:
        sock.close()
        require_free((number,))  # another process may have bound it since
        raise PlatformError(
            f"the kernel refuses queue {number}: {error.strerror or error}",
            "see that it has NFQUEUE with NFQA_CFG_F_GSO and that this process has CAP_NET_ADMIN",
        ) from error
    return sock, early
