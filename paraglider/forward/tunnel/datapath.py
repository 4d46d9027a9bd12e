"""The packet path of ``forward: tunnel``: takes a client's packet, sends it encapsulated.

Flows are those of ``forward.one_sided``. A packet with a backend is sent by ``output`` in an outer
header (``core.encapsulation``); the verdict marks the original packet, which our filter rules drop.
If BPF carries a flow, the worker gets only the packets that the program leaves to it.
As a router does, the worker decrements the TTL, and answers a packet whose TTL ends by Time
Exceeded.

A packet that is too long for the path to its backend:

    IPv4 with DF, IPv6 with TCP   answered by Fragmentation Needed or Packet Too Big, with the MTU
                                  inside the tunnel
    IPv4 without DF               sent in fragments, each with an outer header of its own
    IPv6 with UDP or ICMP         sent in fragments, and the client gets Packet Too Big once in
                                  ``TOLD_SECONDS``: it may have fragmented the packet, which the
                                  kernel has reassembled before the queue
    IPv6 up to 1,280 bytes        sent in fragments: a client need not send less (RFC 8200 §5)

The packet inside is fragmented, not the outer one, so the backend's own stack reassembles it.
ICMP errors are limited to ``ANSWERS`` a second.

Rules: does not raise, whatever the bytes; time is an argument; the packet in the buffer is not
changed.
"""

from __future__ import annotations

import errno
import ipaddress
from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.encapsulation import Outer, count_down, flow_hash
from paraglider.core.flow import ICMP6, UDP, Flow
from paraglider.core.flow_table import FlowTable
from paraglider.core.fragment import fragments4, fragments6
from paraglider.core.icmp_answer import time_exceeded, too_big
from paraglider.core.packet import parse
from paraglider.core.verdict import (
    HOP_LIMIT,
    MARK,
    TOO_BIG,
    TRUNCATED,
    UNSENT,
)
from paraglider.forward.carrier import Carrier
from paraglider.forward.datapath import PacketOutput
from paraglider.forward.one_sided import OneSidedDatapath
from paraglider.forward.tunnel.carrier import Endpoint, TunnelCarrier
from paraglider.netfilter.rules.marks import LEASE

#: most ICMP errors of a worker in a second (Linux has the same limit: icmp_msgs_per_sec)
ANSWERS: Final = 1000
#: seconds for which a client keeps a path's MTU (Linux: net.ipv6.route.mtu_expires), and most
#: clients for which it is recorded that they have been told
TOLD_SECONDS: Final = 600.0
_TOLD_MOST: Final = 4096
#: the least MTU of an IPv6 link (RFC 8200 §5)
_LEAST6: Final = 1280
#: the least MTU for the packet inside (RFC 791: 68 bytes)
_LEAST4: Final = 68

_NUMBER: Final = LEASE - 1  # the bits of a mark that number an endpoint


class TunnelDatapath(OneSidedDatapath):
    """One-sided flows whose packets are sent to the backends by ``output``; without it (in a
    rehearsal) nothing is sent. ``bpf`` is the carrier in the kernel, if there is one.
    """

    def __init__(
        self,
        balancer: Balancer,
        flows: FlowTable,
        carrier: TunnelCarrier,
        output: PacketOutput | None = None,
        bpf: Carrier[Flow] | None = None,
    ) -> None:
        super().__init__(balancer, flows, carrier, bpf)
        self._endpoints = carrier.endpoints
        self._output = output
        self._answers = float(ANSWERS)
        self._answered_at = 0.0
        self._identification = 0
        self._told: dict[bytes, float] = {}  # until when, by a packet's addresses; the oldest first

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """See ``OneSidedDatapath``; ``buf[offset:offset + length]`` is the whole packet, with its
        checksums.
        """
        verdict = super().handle(buf, offset, length, checksum, now)
        if verdict & 0xFF != MARK or self._output is None:
            return verdict
        if buf[offset] >> 4 == 4:
            head, size = (buf[offset] & 15) * 4, buf[offset + 2] << 8 | buf[offset + 3]
        else:
            head, size = 40, 40 + (buf[offset + 4] << 8 | buf[offset + 5])
        if not head < size <= length:
            return self.refuse(TRUNCATED)
        endpoint = self._endpoints[verdict >> 8 & _NUMBER]
        reason = self._forward(endpoint, buf[offset : offset + size], self._output, now)
        return verdict if reason < 0 else self.refuse(reason)

    def _forward(
        self, endpoint: Endpoint, packet: bytearray, output: PacketOutput, now: float
    ) -> int:
        """Send ``packet`` to ``endpoint``; returns -1, or the reason if it was not sent."""
        entropy = flow_hash(packet)
        original = bytes(packet)
        if not count_down(packet):
            self._answer(time_exceeded(original), output, now)
            return HOP_LIMIT
        for last in (False, True):
            endpoint.refresh(output, now)
            if endpoint.outer is None or endpoint.room < _LEAST4:
                return UNSENT
            pieces = [packet]
            if len(packet) > endpoint.room:
                pieces = self._split(packet, original, endpoint.room, output, now)
                if not pieces:
                    return TOO_BIG
            number = _send(endpoint.outer, pieces, entropy, endpoint.address, output)
            if number == errno.EMSGSIZE and not last:
                endpoint.forget()  # the MTU of the path has decreased
                continue
            if number:
                return UNSENT
            endpoint.packets += 1
            endpoint.bytes += len(packet)
            break
        return -1

    def _split(
        self, packet: bytearray, original: bytes, room: int, output: PacketOutput, now: float
    ) -> list[bytearray]:
        """The fragments of ``packet`` that fit ``room``; empty if it must not be fragmented, after
        an ICMP error to its sender.
        """
        if packet[0] >> 4 == 4:
            if packet[6] & 0x40:
                self._answer(too_big(original, room), output, now)
                return []
            return fragments4(packet, room)
        if len(packet) > _LEAST6:
            fragmented = parse(packet, 0, len(packet)).protocol in (UDP, ICMP6)
            if not fragmented or self._is_untold(original[8:40], now):
                self._answer(too_big(original, max(room, _LEAST6)), output, now)
            if not fragmented:
                return []
        self._identification = (self._identification + 1) & 0xFFFFFFFF
        return fragments6(packet, room, self._identification)

    def _is_untold(self, addresses: bytes, now: float) -> bool:
        """Whether the client of ``addresses`` was not told within ``TOLD_SECONDS``; sets that it
        is.
        """
        if self._told.get(addresses, 0.0) > now:
            return False
        self._told.pop(addresses, None)
        self._told[addresses] = now + TOLD_SECONDS
        if len(self._told) > _TOLD_MOST:
            del self._told[next(iter(self._told))]
        return True

    def _answer(self, error: bytes | None, output: PacketOutput, now: float) -> None:
        """Send an ICMP ``error`` to the client, within the limit."""
        self._answers = min(ANSWERS, self._answers + (now - self._answered_at) * ANSWERS)
        self._answered_at = now
        if error is None or self._answers < 1:
            return
        self._answers -= 1
        client = error[16:20] if error[0] >> 4 == 4 else error[24:40]
        output.send(error, str(ipaddress.ip_address(client)))


def _send(
    outer: Outer,
    pieces: list[bytearray],
    entropy: int,
    address: str,
    output: PacketOutput,
) -> int:
    """Send ``pieces`` to ``address``; returns 0, or the error number of the first failure."""
    for piece in pieces:
        number = output.send(outer.wrap(piece, entropy), address)
        if number:
            return number
    return 0
