"""The packet path of ``forward: offload``: the first packet of a flow in, a mark out.

The kernel carries the flow: it queues packets that conntrack calls new, and translates the mark of
the verdict into the backend (``rules.nft``). So Python sees the head of one packet per flow, and
does not change it.

A first packet that is repeated before the kernel has the flow gets the same backend, as long as the
carrier remembers the decision. A SYN with another sequence number is a new connection from a reused
port (RFC 9293, 3.4.1), and gets a new decision.

A TCP segment with ACK and no flow belongs to another balancer's flow, which is adopted if the
service allows it (``core.adoption``): it gets the mark of the flow's backend, and conntrack begins
in mid-stream. Otherwise it passes unmarked, as in ``nat``: the local stack, which owns the VIP,
answers RST. conntrack does not begin with a FIN, so none comes here.

With ``affinity: client`` the timeout of a client starts with its last new flow, since the end of a
flow is not seen.

Rules: does not raise, whatever the bytes; the cost does not depend on the number of remembered
decisions.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.core.adoption import Adopter
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, Flow
from paraglider.core.packet import ACK, ECHO_REQUEST, FIN, FLOW, RST, SYN, parse
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.verdict import (
    FLOW_LOST,
    NO_FLOW,
    NO_SERVICE,
    REASONS,
    TRUNCATED,
    VERDICT_OF,
)
from paraglider.forward.datapath import MIDSTREAM
from paraglider.forward.offload.carrier import ConntrackCarrier, Decided


class FirstPacketDatapath:
    """Decides for first packets; the flows are the kernel's (``carrier``).

    ``adopter`` adopts flows that began elsewhere. ``counts`` counts packets by reason, in the order
    of ``verdict.REASONS``. ``opened``, where set, is called with protocol, key and backend of every
    new flow.
    """

    flows: None = None

    def __init__(self, balancer: Balancer, carrier: ConntrackCarrier) -> None:
        self.balancer = balancer
        self.carrier = carrier
        self.adopter = Adopter()
        self.counts = [0] * len(REASONS)
        self.opened: Callable[[int, bytes, Backend], object] | None = None

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the packet whose head is ``buf[offset:offset + length]``.

        ``checksum`` is ignored; ``now`` is monotonic seconds.
        """
        parsed = parse(buf, offset, length, whole=False)
        if parsed.reason >= 0:
            return self._refuse(parsed.reason)
        sequence = 0
        if parsed.kind == FLOW:
            if parsed.protocol == TCP:
                at = parsed.transport + 13
                if at >= offset + length:
                    return self._refuse(TRUNCATED)
                flags = buf[at] & (FIN | SYN | RST | ACK)
                if flags == SYN:
                    sequence = int.from_bytes(buf[at - 9 : at - 5], "big")
                elif flags == ACK:
                    sequence = MIDSTREAM
                else:
                    return self._refuse(NO_FLOW)
        elif parsed.kind != ECHO_REQUEST:
            return self._refuse(NO_FLOW)
        service = self.balancer.find(parsed.protocol, parsed.key)
        if service is None:
            return self._refuse(NO_SERVICE)
        return self.decide(service, parsed.protocol, parsed.key, now, sequence)

    def decide(
        self, service: VirtualService, protocol: int, key: bytes, now: float, sequence: int
    ) -> int:
        """The verdict for a packet that may open a flow of ``service``; ``sequence`` is a SYN's
        sequence number, ``MIDSTREAM`` for a segment in mid-stream, 0 for other protocols.
        """
        if sequence == MIDSTREAM:
            return self._adopt(service, protocol, key, now)
        made = self.carrier.find(protocol, key, now)
        if made is not None and made.sequence == sequence and made.backend.ready:
            if protocol == TCP:  # the kernel does not report answers
                made.backend.unanswered += 1
            return self.carrier.verdicts[made.backend]
        backend = self.balancer.choose(service, NewFlow(protocol, key, now), _never)
        if backend is None:
            return self._refuse(self.balancer.refusal(service, protocol))
        backend.conns += 1
        mark = self.carrier.install(Decided(protocol, key, backend, sequence, now))
        if service.affinity is not None:
            client = key[: (len(key) - 4) // 2]
            known = service.affinity.find(client, now) is not None
            service.affinity.hold(client, backend)
            if known:  # answers are not seen: a client that returns has no random address
                service.affinity.confirm(client)
            service.affinity.release(client, now)
        if self.opened is not None:
            self.opened(protocol, key, backend)
        return mark

    def _adopt(self, service: VirtualService, protocol: int, key: bytes, now: float) -> int:
        """The verdict for a segment in mid-stream of a flow that the kernel does not have."""
        if service.adoption is None:
            return self._refuse(NO_FLOW)
        made = self.carrier.find(protocol, key, now)
        if made is not None and made.sequence == MIDSTREAM and not made.backend.lost:
            return self.carrier.verdicts[made.backend]  # the kernel does not have it yet
        if made is not None and made.backend.lost:
            return self._refuse(FLOW_LOST)  # it was this balancer's
        found = self.adopter.owner(self.balancer, service, protocol, key, now)
        if found is None:
            return self._refuse(self.adopter.reason)
        backend = found.backend if made is None else made.backend
        backend.conns += 1
        backend.adopted += 1
        mark = self.carrier.install(Decided(protocol, key, backend, MIDSTREAM, now))
        if self.opened is not None:
            self.opened(protocol, key, backend)
        return mark

    def end(self, flow: Flow, now: float) -> None:
        """See ``forward.datapath.Datapath``: there is no flow table, and nothing to end."""

    def _refuse(self, reason: int) -> int:
        self.counts[reason] += 1
        return VERDICT_OF[reason]


def _never(_backend: Backend) -> bool:
    """No backend is ever skipped: the kernel gives a colliding flow another client port."""
    return False
