"""The flows of ``forward: nat``: opened by a client's packet, adopted, and moved by segments.

Lives here: ``NatFlows``, of which the datapath is a subclass.
Rules: as of the datapath. Nothing here is called for a packet of an established flow.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.core.adoption import Adopter
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import (
    ADOPTED_BACKEND,
    ADOPTED_BACKEND_FIN,
    B_RST,
    C_SYN,
    DOUBTFUL,
    EVENTS,
    ONE_SIDED_NEXT,
    SYN_SENT,
    TWO_SIDED_NEXT,
    UDP_ANSWERED,
    UDP_OPEN,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.packet import ACK, RST
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.tcp_events import backend_event, segment_event
from paraglider.core.verdict import (
    COLLISION,
    FLOW_LOST,
    NO_FLOW,
    NO_SERVICE,
    PASS,
    REASONS,
    TABLE_FULL,
    VERDICT_OF,
)
from paraglider.forward.carrier import Carrier
from paraglider.forward.datapath import MIDSTREAM, Decide
from paraglider.forward.worker_carrier import WorkerCarrier


class NatFlows:
    """Flows, balancer and counters of one worker.

    ``others`` decides about the first packets of ``offloaded`` services, which share VIPs and queue
    with nat, and about those in mid-stream of connections that the kernel does not know; their
    other packets do not come here. ``carrier`` carries the flows. If it is also the
    flow table's carrier, a TCP flow is installed with its first packet, a UDP flow with the
    client's second, so a flood of first datagrams fills no map. ``adopter`` adopts flows that began
    elsewhere. ``counts`` counts packets by ``verdict.REASONS``. ``opened``, if set, is called for
    each new flow.
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
        self.adopter = Adopter()
        self.counts = [0] * len(REASONS)
        self.opened: Callable[[int, bytes, Backend], object] | None = None
        self._refused = PASS
        self._sequence = 0  # sequence number of the last SYN that may open a flow, for ``others``
        self._tcp_forward = flows.forward[TCP]
        self._tcp_reverse = flows.reverse[TCP]
        self._udp_forward = flows.forward[UDP]
        self._udp_reverse = flows.reverse[UDP]

    def end(self, flow: Flow, now: float) -> None:
        """See ``forward.datapath.Datapath``: the next segment goes to the local stack."""
        self.flows.forget(flow, now)
        if flow.protocol == TCP:
            self.adopter.end(flow.forward_key, now)

    def _client_segment(
        self, flow: Flow, buf: bytearray, transport: int, key: bytes, now: float
    ) -> Flow | None:
        """The flow of a client's TCP segment: ``flow`` in its next state, or a new one; or None,
        see ``_refused``.
        """
        if _is_backends(flow.state) and not self._goes_on(flow, buf[transport + 13], now):
            return None
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

    def _backend_segment(self, flow: Flow, buf: bytearray, transport: int, now: float) -> bool:
        """Update ``flow`` by a backend's TCP segment with SYN, FIN or RST. Returns whether the flow
        may be another backend's: then it was forgotten, and the segment must be dropped.
        """
        if flow.carried:
            self.flows.refresh(flow)
        event = backend_event(flow, buf, transport)
        if event < 0:
            return False
        if event == B_RST:
            if self.adopter.reject(self.balancer, flow, now):
                self.flows.forget(flow, now)
                return True
            if flow.state == SYN_SENT:
                flow.translation.backend.refused += 1
        after = TWO_SIDED_NEXT[flow.state * EVENTS + event]
        if after != flow.state:
            self.flows.move(flow, after, now)
        return False

    def _goes_on(self, flow: Flow, kind: int, now: float) -> bool:
        """Whether a segment with the flags ``kind`` may be of the client of ``flow``, which a
        backend's segment has begun: a RST may be a stranger's, to which that segment belonged to
        no connection. Then ``flow`` is a connection of the backend's own.
        """
        own = self.adopter.own
        if kind & RST and own.is_asked(flow.reverse_key):
            self._end_own(flow, now)
            self._refused = self._refuse(NO_FLOW)
            return False
        if kind & ACK:
            own.answer(flow.reverse_key)
        return True

    def _is_own(self, flow: Flow, now: float) -> bool:
        """Whether ``flow`` was a connection of the backend's own, and has ended: its client was
        silent.
        """
        if not _is_backends(flow.state) or not self.adopter.own.is_overdue(flow.reverse_key, now):
            return False
        self._end_own(flow, now)
        return True

    def _end_own(self, flow: Flow, now: float) -> None:
        self.flows.forget(flow, now)
        self.adopter.own.add(flow.reverse_key, now)

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

    def _reopen(self, flow: Flow, opening: bool, now: float) -> Flow | None:
        """Forget ``flow``, whose backend is lost. Returns a new flow for the client's packet if it
        may open one, else None with the verdict in ``_refused``.
        """
        self.flows.forget(flow, now)
        if opening:
            return self._open(flow.protocol, flow.forward_key, now)
        if flow.protocol == TCP:
            self.adopter.end(flow.forward_key, now)
        self._refused = self._refuse(FLOW_LOST)
        return None

    def _adopt(
        self,
        service: VirtualService | None,
        protocol: int,
        key: bytes,
        now: float,
        speaks: bool = False,
    ) -> Flow | None:
        """The flow, begun elsewhere, of a client's packet with ``key`` to ``service``, or of a
        backend's, to none; or None, see ``_refused``. ``speaks``: see ``Adopter``.
        """
        if service is not None and service.offloaded and self.others is not None:
            self._refused = self.others(service, protocol, key, now, MIDSTREAM)
            return None
        flow = self.adopter.adopt(
            *(self.balancer, self.flows, protocol, key, now), service=service, speaks=speaks
        )
        if flow is None:
            self._refused = self._refuse(self.adopter.reason)
        elif self.opened is not None:
            self.opened(protocol, flow.forward_key, flow.translation.backend)
        return flow

    def _first_datagram(self, key: bytes, now: float) -> Flow | None:
        """The flow of a datagram without one: a new one of the client with ``key``, or, with that
        as its reverse key, an adopted one of the backend; or None, see ``_refused``.
        """
        service = self.balancer.find(UDP, key)
        # Of equal ports, it may be a client with the service's port (NTP).
        if service is None and key[-4:-2] != key[-2:]:
            return self._adopt(None, UDP, key, now)
        return self._open_at(service, UDP, key, now, None)

    def _open(
        self, protocol: int, key: bytes, now: float, before: Backend | None = None
    ) -> Flow | None:
        """A new flow for ``key``, to ``before`` if that takes flows; or None, see ``_refused``."""
        return self._open_at(self.balancer.find(protocol, key), protocol, key, now, before)

    def _open_at(
        self,
        service: VirtualService | None,
        protocol: int,
        key: bytes,
        now: float,
        before: Backend | None,
    ) -> Flow | None:
        """As ``_open``, of ``service``, to which packets with ``key`` go."""
        if service is None:
            if protocol == TCP:
                self.adopter.begin_own(self.balancer, key, now)
            self._refused = self._refuse(NO_SERVICE)
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


def _is_backends(state: int) -> bool:
    """Whether a backend's segment has begun the flow with ``state``, and its client is silent."""
    return state in (ADOPTED_BACKEND, ADOPTED_BACKEND_FIN)
