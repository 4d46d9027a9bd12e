"""The packet path of ``forward: dsr``: a client's packet in, the mark of its backend out.

Policy routing by the mark forwards the packet unchanged, and the backend, which has the VIP,
answers the client directly. So only the client's half of a flow is seen, and
``flow_states.ONE_SIDED`` has its states. A client that receives the backend's answers shows it by
what it sends and acknowledges (``tcp_events``); before that its flow has a short timeout, and is
evicted first. Packets are not changed, so the head is enough.

The kernel may hold a **lease** of a flow (``leases``), by which it marks the flow's packets itself
for some seconds. The verdict of a proven flow (established; a second datagram) requests one by a
bit of the mark, so a flood does not fill the kernel's memory. After the lease the next packet is
queued, so the worker knows every live flow; a segment with SYN, FIN or RST is always queued. An
ICMP error about a reply gets the mark of the flow's backend (RFC 7690); it neither refreshes nor
ends the flow.

A mid-stream TCP segment without a flow (the predecessor's flows were not restored) goes to the
backend that the strategy picks: the right one if the strategy hashes; any other answers RST, so
that the client reconnects at once instead of hanging. It opens a half-open flow, which is evicted
first. A RST without a flow is dropped. A flow whose backend is lost (``pool``) is removed; one that
the operator ended is refused until its client sends a SYN. Packets without a mark are rejected by
our filter rules; no local address owns the VIP.

Rules: does not raise, whatever the bytes; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

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
    UNSEEN_WINDOW,
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
from paraglider.core.tcp_events import client_event
from paraglider.core.verdict import (
    NO_FLOW,
    NO_SERVICE,
    REASONS,
    STRAY,
    TABLE_FULL,
    TRUNCATED,
    VERDICT_OF,
)

if TYPE_CHECKING:
    from paraglider.forward.dsr.carrier import LeaseCarrier

#: how long, and of how many flows that were ended by hand, it is remembered: a client that says
#: nothing for longer (RFC 5382's idle time) finds that it is not known
ENDED_SECONDS: Final = 7440.0
ENDED_MOST: Final = 100_000

#: where a backend stands that cannot take the SYN of a flow that it already has
_DOWN = (State.DOWN, State.DRAIN_DOWN, State.MAINT)


class DsrDatapath:
    """One-sided flows, balancer and counters of one worker; ``carrier`` has the marks of the
    backends.

    ``counts`` counts packets by reason, in the order of ``verdict.REASONS``. ``opened``, where
    set, is called with protocol, key and backend of every new flow.
    """

    def __init__(self, balancer: Balancer, flows: FlowTable, carrier: LeaseCarrier) -> None:
        self.balancer = balancer
        self.flows = flows
        self.carrier = carrier
        self.counts = [0] * len(REASONS)
        self.opened: Callable[[int, bytes, Backend], object] | None = None
        self._ended: dict[bytes, float] = {}  # keys of TCP flows with a deadline; the oldest first
        self._once = carrier.verdicts
        self._refused = VERDICT_OF[NO_SERVICE]
        self._tcp = flows.forward[TCP]
        self._udp = flows.forward[UDP]

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the packet whose head, or all, is ``buf[offset:offset + length]``.

        ``checksum`` is ignored; ``now`` is monotonic seconds.
        """
        first = buf[offset] if length >= 40 else 0
        if (
            first == 0x45
            and not (buf[offset + 6] & 0x3F) | buf[offset + 7]
            and (buf[offset + 9] == TCP or buf[offset + 9] == UDP)
        ):
            protocol = buf[offset + 9]
            key = bytes(buf[offset + 12 : offset + 24])
            transport = offset + 20
        elif (
            first >> 4 == 6 and length >= 60 and (buf[offset + 6] == TCP or buf[offset + 6] == UDP)
        ):
            protocol = buf[offset + 6]
            key = bytes(buf[offset + 8 : offset + 44])
            transport = offset + 40
        else:
            parsed = parse(buf, offset, length, whole=False)
            if parsed.reason >= 0:
                return self._refuse(parsed.reason)
            if parsed.kind == ICMP_ERROR:
                return self._error(buf, offset, offset + length, parsed)
            if parsed.kind == ECHO_REPLY:
                return self._refuse(NO_FLOW)
            protocol = parsed.protocol
            key = parsed.key
            transport = parsed.transport
            if parsed.kind == ECHO_REQUEST:
                return self._echo(protocol, key, now)
            if protocol == TCP and transport + 13 >= offset + length:
                return self._refuse(TRUNCATED)
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
            self._ended[flow.forward_key] = now + ENDED_SECONDS
            if len(self._ended) > ENDED_MOST:
                del self._ended[next(iter(self._ended))]

    def _segment(self, key: bytes, buf: bytearray, transport: int, now: float) -> int:
        flow = self._tcp.get(key)
        if flow is not None and flow.translation.lost:
            self.flows.forget(flow, now)
            flow = None
        if flow is None:
            return self._first_segment(key, buf, transport, now)
        state = flow.state
        event = client_event(flow, buf, transport, True, UNSEEN_WINDOW, now)
        flow.seen = now
        backend = flow.translation.backend
        if event < 0:
            return self._once[backend]
        after = ONE_SIDED_NEXT[state * EVENTS + event]
        if event == C_SYN:
            if after != state or (GROUP_OF[state] == OPENING and _is_out(backend)):
                self.flows.forget(flow, now)
                flow = self._open(TCP, key, now, backend if state in DOUBTFUL else None)
                return self._refused if flow is None else self._once[flow.translation.backend]
            if state == SYN_SENT:
                backend.unanswered += 1
            return self._once[backend]
        if after != state:
            self.flows.move(flow, after, now)
        if event != C_RST and flow.proof >= GROWTHS and after in (ESTABLISHED, CLIENT_DONE):
            return self.carrier.install(flow)
        return self._once[backend]

    def _first_segment(self, key: bytes, buf: bytearray, transport: int, now: float) -> int:
        """The verdict for a segment without a flow."""
        kind = buf[transport + 13] & (FIN | SYN | RST | ACK)
        if kind != SYN and kind & (SYN | RST | ACK) != ACK:
            return self._refuse(STRAY)
        if self._ended and self._ended.pop(key, 0.0) > now and kind != SYN:
            self._ended[key] = now + ENDED_SECONDS
            return self._refuse(NO_FLOW)
        flow = self._open(TCP, key, now)
        if flow is None:
            return self._refused
        event = client_event(flow, buf, transport, True, UNSEEN_WINDOW, now)
        if event != C_SYN:
            self.flows.move(flow, ONE_SIDED_NEXT[SYN_SENT * EVENTS + event], now)
        return self._once[flow.translation.backend]

    def _datagram(self, key: bytes, now: float) -> int:
        flow = self._udp.get(key)
        if flow is not None and flow.translation.datagrams_lost:
            self.flows.forget(flow, now)
            flow = None
        if flow is None:
            flow = self._open(UDP, key, now)
            if flow is None:
                return self._refused
            if flow.translation.udp_reply:  # its answer is not seen, and it ends soon
                self.flows.move(flow, UDP_ANSWERED, now)
            return self._once[flow.translation.backend]
        flow.seen = now
        if flow.translation.udp_reply:
            return self._once[flow.translation.backend]
        if flow.state == UDP_NEW:
            self.flows.move(flow, UDP_OPEN, now)
        return self.carrier.install(flow)

    def _echo(self, protocol: int, key: bytes, now: float) -> int:
        flow = self.flows.forward[protocol].get(key)
        if flow is not None and flow.translation.datagrams_lost:
            self.flows.forget(flow, now)
            flow = None
        if flow is None:
            flow = self._open(protocol, key, now)
            if flow is None:
                return self._refused
        flow.seen = now
        return self._once[flow.translation.backend]

    def _error(self, buf: bytearray, offset: int, limit: int, error: Parsed) -> int:
        """The verdict for an ICMP error: it goes to the backend of the flow whose reply it
        quotes.
        """
        inner = packet_inside(buf, offset, error, limit)
        if inner.reason >= 0:
            return self._refuse(inner.reason)
        flow = None
        if inner.kind != ECHO_REQUEST:  # only answers have a VIP as source
            flow = self.flows.forward[inner.protocol].get(reverse(inner.key))
        return self._refuse(NO_FLOW) if flow is None else self._once[flow.translation.backend]

    def _open(
        self, protocol: int, key: bytes, now: float, before: Backend | None = None
    ) -> Flow | None:
        """Open a flow for the packet with ``key``; returns None with the verdict in ``_refused`` if
        refused. It goes to ``before``, if that is given and takes new flows.
        """
        service = self.balancer.find(protocol, key)
        if service is None:
            self._refused = self._refuse(NO_SERVICE)
            return None
        backend = before
        if before is None or not before.ready or before not in service.translations:
            backend = self.balancer.choose(service, NewFlow(protocol, key, now), _never)
        if backend is None:
            self._refused = self._refuse(self.balancer.refusal(service, protocol))
            return None
        if not self.flows.make_room(protocol, now):
            self._refused = self._refuse(TABLE_FULL)
            return None
        translation = service.translations[backend]
        flow = self.flows.open(protocol, key, translation.reverse_key(key), translation, now)
        if self.opened is not None:
            self.opened(protocol, key, backend)
        return flow

    def _refuse(self, reason: int) -> int:
        self.counts[reason] += 1
        return VERDICT_OF[reason]


def _is_out(backend: Backend) -> bool:
    return backend.state in _DOWN and not backend.ready


def _never(_backend: Backend) -> bool:
    """No backend is ever skipped: packets are not changed, so no two flows can collide."""
    return False
