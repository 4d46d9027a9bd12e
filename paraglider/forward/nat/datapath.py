"""The packet path of ``forward: nat``: rewrites a packet in place, and returns a verdict.

Requests get the backend's address as destination, replies the VIP as source; ports are replaced if
they are mapped; checksums are updated by a delta (RFC 1624). A TCP segment with only SYN, a UDP
packet or an ICMP echo request without a flow opens one. Any other TCP segment without a flow passes
unchanged to the local stack, which owns the VIP and answers RST, so that the client reconnects at
once instead of hanging.

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

from collections.abc import Callable
from typing import Any, Final

from paraglider.core import icmp_error
from paraglider.core.balancer import Balancer
from paraglider.core.checksum import COMPLETE, KERNELS, sum_of
from paraglider.core.flow import ICMP6, TCP, UDP, Flow
from paraglider.core.flow_states import (
    B_RST,
    C_SYN,
    DOUBTFUL,
    ESTABLISHED,
    EVENTS,
    ONE_SIDED_NEXT,
    SYN_SENT,
    TWO_SIDED_NEXT,
    UDP_ANSWERED,
    UDP_NEW,
    UDP_OPEN,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.packet import ACK, COPY, ECHO_REPLY, FIN, ICMP_ERROR, LONGEST, RST, SYN, parse
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.tcp_events import backend_event, segment_event
from paraglider.core.verdict import (
    COLLISION,
    FLOW_LOST,
    FROM_FORGOTTEN,
    FROM_LOST,
    NO_FLOW,
    NO_SERVICE,
    PASS,
    REASONS,
    REWRITTEN,
    TABLE_FULL,
    TRUNCATED,
    VERDICT_OF,
)
from paraglider.forward.carrier import Carrier
from paraglider.forward.datapath import Decide
from paraglider.forward.worker_carrier import WorkerCarrier

#: whether this module is compiled: single bytes are cheap there, slices and calls elsewhere
COMPILED: Final = not __file__.endswith(".py")


class NatDatapath:
    """Flows, balancer and counters of one worker.

    ``others`` decides about the first packets of ``offloaded`` services, which share VIPs and queue
    with nat; their other packets do not come here. ``carrier`` carries the flows. If it is also the
    flow table's carrier, a TCP flow is installed with its first packet, a UDP flow with the
    client's second, so a flood of first datagrams fills no map. ``counts`` counts packets by
    ``verdict.REASONS``. ``opened``, if set, is called for each new flow.
    """

    def __init__(
        self,
        balancer: Balancer,
        flows: FlowTable,
        others: Decide | None = None,
        carrier: Carrier[Flow] | None = None,
    ) -> None:
        self.balancer = balancer
        self.others = others
        self.carrier: Carrier[Flow] = WorkerCarrier() if carrier is None else carrier
        self.flows = flows
        self.counts = [0] * len(REASONS)
        self.opened: Callable[[int, bytes, Backend], object] | None = None
        self._refused = PASS
        self._sequence = 0  # sequence number of the last SYN that may open a flow, for ``others``
        self._tcp_forward = flows.forward[TCP]
        self._tcp_reverse = flows.reverse[TCP]
        self._udp_forward = flows.forward[UDP]
        self._udp_reverse = flows.reverse[UDP]

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
                reason = icmp_error.translate(buf, offset, parsed, self.flows, now)
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
                    self._backend_segment(back, buf, transport, now)
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
                    flow = self._client_segment(flow, buf, transport, key, now)
            elif self.flows.fetch(TCP, key, now):
                return self.handle(buf, offset, length, checksum, now)
            elif flags & (FIN | SYN | RST | ACK) == SYN:
                self._sequence = int.from_bytes(data[transport + 4 : transport + 8], "big")
                flow = self._open(TCP, key, now)
            else:
                return self._refuse(self._stray_reason(TCP, key))
        elif protocol == UDP:
            flow = self._udp_forward.get(key)
            back = None if flow is not None else self._udp_reverse.get(key)
            if back is not None:
                if back.state == UDP_NEW:
                    self.flows.move(back, UDP_ANSWERED, now)
            elif flow is None and self.flows.fetch(UDP, key, now):
                return self.handle(buf, offset, length, checksum, now)
            elif flow is None:
                flow = self._open(UDP, key, now)
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

    def end(self, flow: Flow, now: float) -> None:
        """See ``forward.datapath.Datapath``: the next segment goes to the local stack."""
        self.flows.forget(flow, now)

    def _client_segment(
        self, flow: Flow, buf: bytearray, transport: int, key: bytes, now: float
    ) -> Flow | None:
        """The flow of a client's TCP segment: ``flow`` in its next state, or a new one."""
        direct = flow.translation.direct
        event = segment_event(self.flows, flow, buf, transport, direct, False, now)
        if event < 0:
            return flow
        state = flow.state
        if event == C_SYN and state == SYN_SENT and not flow.translation.lost:
            flow.translation.backend.unanswered += 1
        after = (ONE_SIDED_NEXT if direct else TWO_SIDED_NEXT)[state * EVENTS + event]
        if after == state:
            return flow
        if event != C_SYN:
            self.flows.move(flow, after, now)
            return flow
        self.flows.forget(flow, now)
        return self._open(TCP, key, now, flow.translation.backend if state in DOUBTFUL else None)

    def _backend_segment(self, flow: Flow, buf: bytearray, transport: int, now: float) -> None:
        """Update ``flow`` by a backend's TCP segment with SYN, FIN or RST."""
        if flow.carried:
            self.flows.refresh(flow)
        event = backend_event(flow, buf, transport)
        if event < 0:
            return
        if event == B_RST and flow.state == SYN_SENT:
            flow.translation.backend.refused += 1
        after = TWO_SIDED_NEXT[flow.state * EVENTS + event]
        if after != flow.state:
            self.flows.move(flow, after, now)

    def _client_datagram(self, flow: Flow, now: float) -> None:
        """Update ``flow`` by a client's datagram that is not its first."""
        translation = flow.translation
        if translation.udp_reply:
            return
        if flow.state == UDP_ANSWERED or translation.direct:
            self.flows.move(flow, UDP_OPEN, now)
        elif self.flows.carrier is not None and not flow.carried:
            flow.seen = now
            self.carrier.install(flow)

    def _stray_reason(self, protocol: int, key: bytes) -> int:
        """The reason for refusing a packet without a flow that opens none."""
        size = (len(key) - 4) // 2
        forgotten = self.balancer.services.is_source(protocol, key[:size], key[-4:-2])
        return FROM_FORGOTTEN if forgotten else NO_FLOW

    def _reopen(self, flow: Flow, opening: bool, now: float) -> Flow | None:
        """Forget ``flow``, whose backend is lost. Returns a new flow for the client's packet if it
        may open one, else None with the verdict in ``_refused``.
        """
        self.flows.forget(flow, now)
        if opening:
            return self._open(flow.protocol, flow.forward_key, now)
        self._refused = self._refuse(FLOW_LOST)
        return None

    def _open(
        self, protocol: int, key: bytes, now: float, before: Backend | None = None
    ) -> Flow | None:
        """A new flow for ``key``, to ``before`` if that takes flows; or None, see ``_refused``."""
        service = self.balancer.find(protocol, key)
        if service is None:
            reason = NO_SERVICE
            if (
                protocol == UDP and key[-4:-2] != key[-2:]
            ):  # else a client with the service's port (NTP)
                reason = self._stray_reason(protocol, key)
            self._refused = self._refuse(NO_SERVICE if reason == NO_FLOW else reason)
            return None
        if service.offloaded and self.others is not None:
            sequence = self._sequence if protocol == TCP else 0
            self._refused = self.others(service, protocol, key, now, sequence)
            return None
        translations = service.translations
        reverse = self.flows.reverse[protocol]
        reverse_key = b""  # of the last backend considered, which is the chosen one

        def collides(backend: Backend) -> bool:
            nonlocal reverse_key
            reverse_key = translations[backend].reverse_key(key)
            return reverse_key in reverse

        backend = before
        if before is None or not before.ready or before not in translations or collides(before):
            backend = self.balancer.choose(service, NewFlow(protocol, key, now), collides)
        if backend is None:
            self._refused = self._refuse(self.balancer.refusal(service, protocol))
            return None
        if reverse_key in reverse:
            self._refused = self._refuse(COLLISION)
            return None
        if not self.flows.make_room(protocol, now):
            self._refused = self._refuse(TABLE_FULL)
            return None
        translation = translations[backend]
        flow = self.flows.open(protocol, key, reverse_key, translation, now)
        if protocol == UDP and translation.direct and translation.udp_reply:
            self.flows.move(flow, UDP_ANSWERED, now)  # its answer is not seen
        elif (protocol == TCP or translation.decided) and self.flows.carrier is not None:
            self.carrier.install(flow)
        if self.opened is not None:
            self.opened(protocol, key, backend)
        return flow

    def _refuse(self, reason: int) -> int:
        self.counts[reason] += 1
        return VERDICT_OF[reason]


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
