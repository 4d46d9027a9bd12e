"""The packet path of methods whose backends have the VIP: takes a client's packet, returns a mark.

The backend answers the client directly. So a flow has the client's packets only, and its states are
those of ``flow_states.ONE_SIDED``. What the client sends and acknowledges proves that it receives
the backend's answers (``tcp_events``); before that its flow has a short timeout, and is evicted
first. Packets are not changed, so the head is enough.

The kernel may hold a **lease** of a flow, by which it marks the flow's packets itself for some
seconds. The verdict of a proven flow (established, or a second datagram) requests a lease by a bit
of the mark, so a flood does not fill the kernel's memory. After the lease the next packet is
queued, so the worker sees every live flow. A segment with SYN, FIN or RST is always queued. If BPF
carries a flow, its packets need neither worker nor lease; before the worker judges a segment with
SYN, FIN or RST, it updates the flow by its entry. An ICMP error about a reply gets the mark of the
flow's backend (RFC 7690), or of the backend that would have the flow if it is not known here; it
neither refreshes nor ends the flow.

A mid-stream TCP segment without a flow (of another balancer's, for example) is adopted, if the
service allows it (``core.adoption``): it opens a half-open flow, which is evicted first. A RST
without a flow is dropped. A flow whose backend is lost (``pool``) is removed. Such a flow, and one
that the operator ended, is refused until its client sends a SYN. Packets without a mark are
rejected by our filter rules, with RST for a segment; no local address owns the VIP.

Rules: does not raise, whatever the bytes; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from paraglider.core.adoption import Adopter
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import (
    C_RST,
    C_SYN,
    CLIENT_DONE,
    DOUBTFUL,
    ESTABLISHED,
    EVENTS,
    GROUP_OF,
    GROWTHS,
    ONE_SIDED_NEXT,
    OPENING,
    SYN_SENT,
    UDP_ANSWERED,
    UDP_NEW,
    UDP_OPEN,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.icmp_error import packet_inside
from paraglider.core.packet import (
    ACK,
    ECHO_REPLY,
    ECHO_REQUEST,
    FIN,
    ICMP_ERROR,
    RST,
    SYN,
    Parsed,
    parse,
    reverse,
)
from paraglider.core.pool import Backend, State
from paraglider.core.strategies.base import NewFlow
from paraglider.core.tcp_events import client_event, is_replaced, segment_event
from paraglider.core.verdict import (
    FLOW_LOST,
    NO_FLOW,
    NO_SERVICE,
    REASONS,
    STRAY,
    TABLE_FULL,
    TRUNCATED,
    VERDICT_OF,
)
from paraglider.forward.carrier import Carrier

#: states of a backend that cannot take the SYN of a flow that it already has
_DOWN = (State.DOWN, State.DRAIN_DOWN, State.MAINT)


class MarkCarrier(Carrier[Flow]):
    """A carrier by marks. ``verdicts`` maps backends to the verdict of a packet; it is never
    replaced. ``install`` returns the verdict of a packet whose client is proven.
    """

    verdicts: dict[Backend, int]
    #: packets of a flow may pass without the worker after ``install``
    leases: ClassVar[bool] = False


class OneSidedDatapath:
    """One-sided flows, balancer and counters of one worker. ``marks`` has the marks of the
    backends, and carries the flows unless there is another ``carrier``. ``adopter`` knows which
    flows it may adopt.

    ``counts`` counts packets by reason, in the order of ``verdict.REASONS``. ``opened``, where
    set, is called with protocol, key and backend of every new flow.
    """

    def __init__(
        self,
        balancer: Balancer,
        flows: FlowTable,
        marks: MarkCarrier,
        carrier: Carrier[Flow] | None = None,
    ) -> None:
        self.balancer = balancer
        self.flows = flows
        self.carrier: Carrier[Flow] = marks if carrier is None else carrier
        self.counts = [0] * len(REASONS)
        self.opened: Callable[[int, bytes, Backend], object] | None = None
        self.adopter = Adopter()
        self._bytes = 0  # of the present packet
        self._verdicts = marks.verdicts
        self._leased = marks.leases
        self._refused = VERDICT_OF[NO_SERVICE]
        self._tcp = flows.forward[TCP]
        self._udp = flows.forward[UDP]

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the packet in ``buf[offset:offset + length]``, of which the head
        suffices.

        ``checksum`` is ignored; ``now`` is monotonic seconds.
        """
        data = buf  # compiled, the bytes themselves
        first = data[offset] if length >= 40 else 0
        if (
            first == 0x45
            and not (data[offset + 6] & 0x3F) | data[offset + 7]
            and (data[offset + 9] == TCP or data[offset + 9] == UDP)
        ):
            protocol = data[offset + 9]
            key = bytes(data[offset + 12 : offset + 24])
            transport = offset + 20
            self._bytes = data[offset + 2] << 8 | data[offset + 3]
        elif (
            first >> 4 == 6
            and length >= 60
            and (data[offset + 6] == TCP or data[offset + 6] == UDP)
        ):
            protocol = data[offset + 6]
            key = bytes(data[offset + 8 : offset + 44])
            transport = offset + 40
            self._bytes = 40 + (data[offset + 4] << 8 | data[offset + 5])
        else:
            parsed = parse(buf, offset, length, whole=False)
            if parsed.reason >= 0:
                return self.refuse(parsed.reason)
            self._bytes = parsed.end - offset
            if parsed.kind == ICMP_ERROR:
                return self._error(buf, offset, offset + length, parsed, now)
            if parsed.kind == ECHO_REPLY:
                return self.refuse(NO_FLOW)
            protocol = parsed.protocol
            key = parsed.key
            transport = parsed.transport
            if parsed.kind == ECHO_REQUEST:
                return self._echo(protocol, key, now)
            if protocol == TCP and transport + 13 >= offset + length:
                return self.refuse(TRUNCATED)
        if protocol == TCP:
            return self._segment(key, buf, transport, now)
        return self._datagram(key, now)

    def end(self, flow: Flow, now: float) -> None:
        """See ``forward.datapath.Datapath``: a TCP client's packets are refused up to the next SYN,
        and the leases of the flow's backend end.
        """
        self.flows.forget(flow, now)
        self.carrier.remove(flow)
        if flow.protocol == TCP:
            self.adopter.end(flow.forward_key, now)

    def _segment(self, key: bytes, buf: bytearray, transport: int, now: float) -> int:
        flow = self._tcp.get(key)
        if flow is None and self.flows.fetch(TCP, key, now):
            flow = self._tcp.get(key)  # none, if the key is that of another flow's answers
        if flow is not None and is_replaced(self.flows, flow, key, buf[transport + 13], now):
            flow = self._tcp.get(key)
        if flow is not None and flow.translation.lost:
            self.flows.forget(flow, now)
            if buf[transport + 13] & (FIN | SYN | RST | ACK) != SYN:
                self.adopter.end(key, now)
                return self.refuse(FLOW_LOST)
            flow = None
        if flow is None:
            return self._first_segment(key, buf, transport, now)
        event = segment_event(self.flows, flow, buf, transport, True, self._leased, now)
        state = flow.state
        flow.seen = now
        backend = flow.translation.backend
        if event < 0:
            return self._marked(flow)
        after = ONE_SIDED_NEXT[state * EVENTS + event]
        if event == C_SYN:
            if after != state or (GROUP_OF[state] == OPENING and _is_out(backend)):
                self.flows.forget(flow, now)
                flow = self._open(TCP, key, now, backend if state in DOUBTFUL else None)
                return self._refused if flow is None else self._opened(flow)
            if state == SYN_SENT:
                backend.unanswered += 1
            return self._marked(flow)
        if after != state:
            self.flows.move(flow, after, now)
        if event != C_RST and flow.proof >= GROWTHS and after in (ESTABLISHED, CLIENT_DONE):
            return self._installed(flow)
        return self._marked(flow)

    def _first_segment(self, key: bytes, buf: bytearray, transport: int, now: float) -> int:
        """The verdict for a segment without a flow."""
        kind = buf[transport + 13] & (FIN | SYN | RST | ACK)
        if kind == SYN:
            self.adopter.begin(key)
            flow = self._open(TCP, key, now)
            return self._refused if flow is None else self._opened(flow)
        if kind & (SYN | RST | ACK) != ACK:
            return self.refuse(STRAY)
        service = self.balancer.find(TCP, key)
        flow = self.adopter.adopt(self.balancer, self.flows, TCP, key, now, service=service)
        if flow is None:
            return self.refuse(self.adopter.reason)
        if self.opened is not None:
            self.opened(TCP, key, flow.translation.backend)
        event = client_event(flow, buf, transport, True, False, now)
        self.flows.move(flow, ONE_SIDED_NEXT[SYN_SENT * EVENTS + event], now)
        return self._marked(flow)

    def _datagram(self, key: bytes, now: float) -> int:
        flow = self._live(self._udp.get(key), now)
        if flow is None and self.flows.fetch(UDP, key, now):
            flow = self._live(self._udp.get(key), now)
        if flow is None:
            flow = self._open(UDP, key, now)
            if flow is None:
                return self._refused
            if flow.translation.udp_reply:  # its answer is not seen, and it ends soon
                self.flows.move(flow, UDP_ANSWERED, now)
            return self._opened(flow)
        flow.seen = now
        if flow.translation.udp_reply:
            return self._marked(flow)
        if flow.state == UDP_NEW:
            self.flows.move(flow, UDP_OPEN, now)
        return self._installed(flow)

    def _echo(self, protocol: int, key: bytes, now: float) -> int:
        flow = self._live(self.flows.forward[protocol].get(key), now)
        if flow is None:
            flow = self._open(protocol, key, now)
            if flow is None:
                return self._refused
        flow.seen = now
        return self._marked(flow)

    def _live(self, flow: Flow | None, now: float) -> Flow | None:
        """``flow`` of datagrams; None, and it is forgotten, if its backend is lost."""
        if flow is None or not flow.translation.datagrams_lost:
            return flow
        self.flows.forget(flow, now)
        return None

    def _marked(self, flow: Flow) -> int:
        """Count the present packet for ``flow``; returns its verdict."""
        translation = flow.translation
        translation.packets_out += 1
        translation.bytes_out += self._bytes
        return self._verdicts[translation.backend]

    def _opened(self, flow: Flow) -> int:
        """As ``_marked``, for a packet that has opened ``flow``. If the program decides for its
        service, it would else decide about the next packet too.
        """
        if flow.translation.decided:
            self.carrier.install(flow)
        return self._marked(flow)

    def _installed(self, flow: Flow) -> int:
        """As ``_marked``, and carry ``flow`` from its next packet on."""
        self._marked(flow)
        return self.carrier.install(flow)

    def _error(self, buf: bytearray, offset: int, limit: int, error: Parsed, now: float) -> int:
        """The verdict for an ICMP error: it goes to the backend of the flow whose reply it quotes;
        without such a flow, to the backend that would have it.
        """
        inner = packet_inside(buf, offset, error, limit)
        if inner.reason >= 0:
            return self.refuse(inner.reason)
        translation = None
        if inner.kind != ECHO_REQUEST:  # only answers have a VIP as source
            key = reverse(inner.key)
            flow = self.flows.forward[inner.protocol].get(key)
            if flow is not None:
                translation = flow.translation
            else:
                translation = self.balancer.owner(NewFlow(inner.protocol, key, now))
        return self.refuse(NO_FLOW) if translation is None else self._verdicts[translation.backend]

    def _open(
        self, protocol: int, key: bytes, now: float, before: Backend | None = None
    ) -> Flow | None:
        """Open a flow for the packet with ``key``; returns None if refused, with the verdict in
        ``_refused``. The flow goes to ``before``, if that takes new flows.
        """
        service = self.balancer.find(protocol, key)
        if service is None:
            self._refused = self.refuse(NO_SERVICE)
            return None
        backend = before
        if before is None or not before.ready or before not in service.translations:
            backend = self.balancer.choose(service, NewFlow(protocol, key, now), _never)
        if backend is None:
            self._refused = self.refuse(self.balancer.refusal(service, protocol))
            return None
        if not self.flows.make_room(protocol, now):
            self._refused = self.refuse(TABLE_FULL)
            return None
        translation = service.translations[backend]
        flow = self.flows.open(protocol, key, translation.reverse_key(key), translation, now)
        if self.opened is not None:
            self.opened(protocol, key, backend)
        return flow

    def refuse(self, reason: int) -> int:
        """Count the packet by ``reason``; returns the verdict for it."""
        self.counts[reason] += 1
        return VERDICT_OF[reason]


def _is_out(backend: Backend) -> bool:
    return backend.state in _DOWN and not backend.ready


def _never(_backend: Backend) -> bool:
    """No backend is ever skipped: packets are not changed, so no two flows can collide."""
    return False
