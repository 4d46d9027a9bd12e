"""Reads packets from a netlink socket and writes verdicts to it in rounds, without copying packets.

A round reads the waiting messages into the slots of one arena. A packet is rewritten in place. The
head of its verdict overwrites the bytes before it, which have been read by then and are never
fewer. One sendmsg carries the verdicts of the round.

Lives here: the interpreted ``Batch``. Its compiled twin ``_batch.pyx`` has the same interface and
reads a round with one recvmmsg.
Rules: the caller owns a slot's bytes from ``receive`` until ``flush``, and calls exactly one of
``rewritten``, ``marked``, ``dropped`` for every packet that ``open`` finds.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from paraglider.core.checksum import COMPLETE, KERNELS, UNFINISHED
from paraglider.netfilter.queue.messages import (
    INFO_HEAD,
    NF_ACCEPT,
    NF_DROP,
    NFQA_PAYLOAD,
    PACKET_TYPE,
    VERDICT_HEAD,
    answer,
    bare_verdict,
    payload_at,
    read_attribute,
    verdict_constant,
    write_verdict,
)

#: packets a round at most
ROUND: Final = 64
#: bytes for one packet and its attributes, a multiple of 4
SLOT: Final = 68 << 10
#: bytes of verdicts that one sendmsg carries; a single longer verdict goes alone
FLUSH: Final = 192 << 10

#: state of the transport checksum by the two low bits of NFQA_SKB_INFO
CHECKSUM_STATES: Final = (COMPLETE, UNFINISHED, KERNELS, KERNELS)


class Batch:
    """Rounds of packets of one queue over the socket that reads it.

    ``arena`` holds message ``i`` in slot ``i`` (at ``i * SLOT``). After ``open``: ``payload`` is
    where the packet begins in the arena, ``length`` its bytes there, ``checksum`` the state of
    its transport checksum. ``refused`` counts verdicts that the kernel refused.
    """

    def __init__(self, sock: socket.socket, queue: int) -> None:
        self.arena = bytearray(ROUND * SLOT)
        self.payload = 0
        self.length = 0
        self.checksum = COMPLETE
        self.refused = 0
        self._queue = queue
        self._sizes = [0] * ROUND
        self._view = memoryview(self.arena)
        self._slots = [self._view[i * SLOT : (i + 1) * SLOT] for i in range(ROUND)]
        self._receive_into = sock.recv_into
        self._send = sock.sendmsg
        self._out: list[memoryview | bytes] = []
        self._bytes = 0
        self._packet_id = b""
        self._accept = verdict_constant(queue, NF_ACCEPT)
        self._layouts = [VERDICT_HEAD] * 8

    def receive(self, limit: int) -> int:
        """Read up to ``limit`` messages without blocking; return how many were read."""
        sizes = self._sizes
        slots = self._slots
        receive_into = self._receive_into
        count = 0
        with contextlib.suppress(BlockingIOError):
            while count < limit:
                sizes[count] = receive_into(slots[count], 0, socket.MSG_DONTWAIT)
                count += 1
        return count

    def load(self, message: bytes) -> None:
        """Put ``message`` into slot 0, as if it had been received."""
        self.arena[: len(message)] = message
        self._sizes[0] = len(message)

    def open(self, index: int) -> bool:
        """Find the packet in slot ``index``; False when the message there carries none."""
        arena = self.arena
        base = index * SLOT
        size = self._sizes[index]
        if arena[base + 4 : base + 6] != PACKET_TYPE:
            if answer(bytes(arena[base : base + size])) > 0:
                self.refused += 1
            return False
        # The attributes of one hook always have one layout: try the offset of the last packet.
        hook = arena[base + 30] & 7
        at = self._layouts[hook]
        if read_attribute(arena, base + at - 4) != (size - at + 4, NFQA_PAYLOAD):
            at = self._layouts[hook] = payload_at(arena, base, size)
        self._packet_id = bytes(arena[base + 24 : base + 28])
        self.payload = payload = base + at
        self.length = size - at
        if arena[payload - 12 : payload - 8] == INFO_HEAD:
            self.checksum = CHECKSUM_STATES[arena[payload - 5] & 3]
        else:
            self.checksum = COMPLETE
        return True

    def rewritten(self) -> None:
        """Accept the packet as it is in the arena now."""
        length = self.length
        start = self.payload - VERDICT_HEAD
        size = VERDICT_HEAD + ((length + 3) & ~3)
        write_verdict(
            self.arena, start, size, self._accept, self._packet_id, 4 + length, NFQA_PAYLOAD
        )
        self._out.append(self._view[start : start + size])
        self._bytes += size
        if self._bytes >= FLUSH:
            self.flush()

    def marked(self, mark: int) -> None:
        """Accept the packet unchanged, with ``mark``."""
        self._out.append(bare_verdict(self._queue, NF_ACCEPT, self._packet_id, mark))

    def dropped(self) -> None:
        """Drop the packet."""
        self._out.append(bare_verdict(self._queue, NF_DROP, self._packet_id, None))

    def flush(self) -> None:
        """Send the verdicts given, in order, in one system call."""
        if self._out:
            out, self._out, self._bytes = self._out, [], 0
            self._send(out)


def _choose() -> type[Batch]:
    """The compiled batch if it was built, else the interpreted one."""
    try:
        from paraglider.netfilter.queue._batch import Batch as CompiledBatch
    except ImportError:
        return Batch
    compiled: type[Batch] = CompiledBatch
    return compiled


#: chosen at the import: a worker without privileges may not be able to read the package
_CHOSEN: Final = _choose()


def open_batch(sock: socket.socket, queue: int) -> Batch:
    """The compiled batch if it was built, else the interpreted one."""
    return _CHOSEN(sock, queue)
