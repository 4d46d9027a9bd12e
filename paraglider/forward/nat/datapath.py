"""The packet path of ``forward: nat``: rewrites a packet in place, and returns a verdict.

Requests get the backend's address as destination, replies the VIP as source; ports are replaced if
they are mapped; checksums are updated by a delta (RFC 1624). A TCP segment with only SYN, a UDP
packet or an ICMP echo request without a flow opens one. Any other TCP segment without a flow, and a
backend's packet without one, belongs to a flow of another balancer, which is adopted if the service
allows it (``core.adoption``). A client's segment that is not adopted passes unchanged to the local
stack, which owns the VIP and answers RST, so that the client reconnects at once instead of hanging;
a backend's packet is dropped.

The tables of ``flow_states`` define the TCP states. One sequence number is tracked, to recognize a
forged RST: the next one that the backend expects from the client, which each packet of the backend
has. If the backend's packets are not seen (``return: direct``), the client's own numbers are used.

A packet of which only the head was copied (``packet.COPY``, ``LONGEST``) gets a mark, by which the
kernel does the same translation (``forward.nat.long``). A flow whose backend is lost (``pool``)
ends with the client's next packet. A SYN, a datagram or an echo request opens a new flow to another
backend; any other segment passes unchanged, and is answered with RST. The backend's are dropped.

Rules: ``handle`` is called for every packet: no allocation but the key, one look-up, no call for an
established flow. It does not raise, whatever the bytes.
"""

from __future__ import annotations

from typing import Any, Final

from paraglider.core import icmp_error
from paraglider.core.checksum import COMPLETE, KERNELS, sum_of
from paraglider.core.flow import ICMP6, TCP, UDP
from paraglider.core.flow_states import ESTABLISHED, UDP_ANSWERED, UDP_NEW, UDP_OPEN
from paraglider.core.packet import ACK, COPY, ECHO_REPLY, FIN, ICMP_ERROR, LONGEST, RST, SYN, parse
from paraglider.core.tcp_events import is_replaced
from paraglider.core.verdict import FROM_LOST, NO_FLOW, OTHER_BACKEND, REWRITTEN, TRUNCATED
from paraglider.forward.nat.flows import NatFlows

#: whether this module is compiled: single bytes are cheap there, slices and calls elsewhere
COMPILED: Final = not __file__.endswith(".py")


class NatDatapath(NatFlows):
    """Rewrites the packets of the flows of one worker."""

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the IP packet in ``buf[offset:offset + length]``, rewritten in place.

        ``checksum`` is COMPLETE, UNFINISHED or KERNELS; ``now`` is monotonic seconds.
        """
        data = buf  # compiled, the bytes themselves
        first = data[offset] if length >= 40 else 0
        size = protocol = kind = 0
        if first >> 4 == 6:
            size = (data[offset + 4] << 8 | data[offset + 5]) + 40
            protocol = data[offset + 6]
        elif first:
            size = data[offset + 2] << 8 | data[offset + 3]
            protocol = data[offset + 9]
        end = offset + size
        plain = protocol in (TCP, UDP) and (size == length or size > length == COPY)
        if plain and first == 0x45 and not (data[offset + 6] & 0x3F) | data[offset + 7]:
            transport = offset + 20
            key: Any = data[offset + 12 : offset + 24]
            four = True
        elif plain and first >> 4 == 6 and length >= 60:
            transport = offset + 40
            key = data[offset + 8 : offset + 44]
            four = False
        else:
            parsed = parse(buf, offset, length, length != LONGEST and length != COPY)
            if parsed.reason >= 0:
                return self._refuse(parsed.reason)
            end = parsed.end
            if parsed.kind == ICMP_ERROR:
                if end > offset + length:
                    return self._refuse(TRUNCATED)
                reason = icmp_error.translate(buf, offset, parsed, self.flows, now, self.balancer)
                return self._refuse(reason) if reason >= 0 else REWRITTEN
            protocol = parsed.protocol
            transport = parsed.transport
            key = parsed.key
            kind = parsed.kind
            four = data[offset] >> 4 == 4
        cut = end > offset + length
        if cut:
            length = end - offset

        if not COMPILED:
            key = bytes(key)
        # Is it a client's packet (forward), a backend's (reverse), or one without a flow?
        if protocol == TCP:
            flow = self._tcp_forward.get(key)
            back = None if flow is not None else self._tcp_reverse.get(key)
            flags = data[transport + 13]
            if back is not None:
                if back.state != ESTABLISHED or flags & (FIN | SYN | RST):
                    if is_replaced(self.flows, back, key, flags, now) or self._is_own(back, now):
                        return self.handle(buf, offset, length, checksum, now)
                    if self._backend_segment(back, buf, transport, now):
                        return self._refuse(OTHER_BACKEND)
                else:
                    back.expected = (
                        data[transport + 8] << 24
                        | data[transport + 9] << 16
                        | data[transport + 10] << 8
                        | data[transport + 11]
                    )
            elif flow is not None:
                if (
                    flow.state != ESTABLISHED
                    or flags & (FIN | SYN | RST)
                    or flow.translation.direct
                ):
                    if is_replaced(self.flows, flow, key, flags, now):
                        return self.handle(buf, offset, length, checksum, now)
                    flow = self._client_segment(flow, buf, transport, key, now)
            elif self.flows.fetch(TCP, key, now):
                return self.handle(buf, offset, length, checksum, now)
            elif flags & (FIN | SYN | RST | ACK) == SYN:
                self._sequence = int.from_bytes(data[transport + 4 : transport + 8], "big")
                self.adopter.begin(key)
                flow = self._open(TCP, key, now)
            elif flags & (SYN | RST | ACK) == ACK:
                data_at = transport + (data[transport + 12] >> 4) * 4
                speaks = flags & FIN != 0 or data_at < end
                flow = self._adopt(self.balancer.find(TCP, key), TCP, key, now, speaks)
                if flow is None:
                    return self._refused
                if flow.forward_key == key:
                    flow.expected = int.from_bytes(data[transport + 4 : transport + 8], "big")
                    self._client_segment(flow, buf, transport, key, now)
                else:
                    back, flow = flow, None
                    self._backend_segment(back, buf, transport, now)
            else:
                return self._refuse(self.adopter.stray(self.balancer, TCP, key))
        elif protocol == UDP:
            flow = self._udp_forward.get(key)
            back = None if flow is not None else self._udp_reverse.get(key)
            if back is not None:
                if back.state == UDP_NEW:
                    self.flows.move(back, UDP_ANSWERED, now)
            elif flow is None and self.flows.fetch(UDP, key, now):
                return self.handle(buf, offset, length, checksum, now)
            elif flow is None:
                flow = self._first_datagram(key, now)
                if flow is not None and flow.forward_key != key:
                    back, flow = flow, None
            elif flow.state != UDP_OPEN:
                self._client_datagram(flow, now)
        elif kind == ECHO_REPLY:
            flow = None
            back = self.flows.reverse[protocol].get(key)
            if back is None:
                return self._refuse(NO_FLOW)
        else:
            back = None
            flow = self.flows.forward[protocol].get(key)
            if flow is None:
                flow = self._open(protocol, key, now)

        if flow is not None:
            translation = flow.translation
            if translation.special:
                if translation.lost if protocol == TCP else translation.datagrams_lost:
                    opening = (
                        protocol != TCP or data[transport + 13] & (FIN | SYN | RST | ACK) == SYN
                    )
                    flow = self._reopen(flow, opening, now)
                    if flow is None:
                        return self._refused
                    translation = flow.translation
                if translation.mapped:
                    buf[transport + 2 : transport + 4] = translation.backend_port
            flow.seen = now
            translation.packets_out += 1
            translation.bytes_out += length
            address = translation.backend_address
            at = offset + (16 if four else 24)
            change = translation.address_out
            transport_change = translation.transport_out
        elif back is not None:
            translation = back.translation
            if translation.special:
                if translation.lost:
                    return self._refuse(FROM_LOST)
                if translation.mapped:
                    buf[transport : transport + 2] = translation.vip_port
            back.seen = now
            translation.packets_back += 1
            translation.bytes_back += length
            address = translation.vip
            at = offset + (12 if four else 8)
            change = translation.address_back
            transport_change = translation.transport_back
        else:
            return self._refused
        if cut:
            return translation.long_verdict or self._refuse(TRUNCATED)
        if COMPILED:
            for index in range(4 if four else 16):
                data[at + index] = address[index]
        else:
            buf[at : at + len(address)] = address
        if four:
            value = ((data[offset + 10] << 8 | data[offset + 11]) + change) % 65535
            data[offset + 10] = value >> 8
            data[offset + 11] = value & 255
        if protocol == TCP:
            at = transport + 16
        elif protocol == UDP:
            at = transport + 6
        elif protocol == ICMP6:
            at = transport + 2
        else:
            return REWRITTEN  # ICMP covers no address
        if checksum == COMPLETE:
            value = data[at] << 8 | data[at + 1]
            if protocol != UDP:
                value = (value + transport_change) % 65535
            elif value:  # 0 means no checksum: a computed 0 is sent as 0xffff
                value = (value + transport_change) % 65535 or 0xFFFF
        elif checksum == KERNELS:  # a sum, no complement; the pseudo-header has no ports
            value = ((data[at] << 8 | data[at + 1]) - change) % 65535
        elif four:
            value = _full_checksum(buf, offset + 12, 8, transport, end, at, protocol)
        else:
            value = _full_checksum(buf, offset + 8, 32, transport, end, at, protocol)
        data[at] = value >> 8
        data[at + 1] = value & 255
        return REWRITTEN


def _full_checksum(
    buf: bytearray, source: int, size: int, transport: int, end: int, at: int, protocol: int
) -> int:
    """The checksum at ``at`` of ``buf[transport:end]``, for addresses of ``size`` at ``source``."""
    buf[at] = buf[at + 1] = 0
    total = protocol + end - transport
    if source + size == transport:
        total += sum_of(buf, source, end)
    else:
        total += sum_of(buf, source, source + size) + sum_of(buf, transport, end)
    value = (0xFFFF - total) % 65535
    return 0xFFFF if value == 0 and protocol == UDP else value
