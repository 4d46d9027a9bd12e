"""Adoption: a flow whose beginning passed another balancer, or was forgotten, continues here.

Any packet of a flow leads to its backend, where the service's strategy allows it
(``adoption_tables``). So flows move between balancers, and nothing is exchanged between these:

    client's segment    ACK without SYN and RST: a half-open flow to the backend of the present
                        table. If this answers RST before anything else, the RST is dropped, and the
                        client's next segment goes to the backend of another table
    backend's packet    its address and port answer for one VIP: a flow to this very backend, also
                        in place of one that a client's packet has led elsewhere, and whose backend
                        has not gone on with it. If they may answer for several VIPs, only in such
                        a one's place; if it may be of a connection of the backend's own (all
                        ports), the client has to go on with it at once (``own_connections``)
    ICMP error          translated by the packet inside; no flow is made

Where conntrack carries the flows (``forward.offload``), the kernel adopts those whose backend goes
on first, and no backend's RST is dropped.

A flow that an operator has ended, or that has lost its backend, is not adopted until its client
sends a SYN.

Lives here: ``Adopter``, which adopts flows for a datapath.
Rules: does not raise; time is an argument. At most ``limit`` flows are adopted in a second, so a
flood of segments without a flow costs no more than that many new flows; memory is bounded.
"""

from __future__ import annotations

from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_index import FlowIndex
from paraglider.core.flow_states import (
    ADOPTED,
    ADOPTED_BACKEND,
    ADOPTED_FIN,
    UDP_ANSWERED,
    UDP_NEW,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.own_connections import OwnConnections
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.translation import Translation
from paraglider.core.verdict import (
    ADOPTION_LIMIT,
    COLLISION,
    FROM_FORGOTTEN,
    FROM_LOST,
    NO_FLOW,
    NO_SERVICE,
    TABLE_FULL,
)

#: seconds for which an ended flow is refused (the idle timeout of RFC 5382), and most such flows
ENDED_SECONDS: Final = 7440.0
ENDED_MOST: Final = 100_000
#: seconds for which it is remembered that a backend has refused a flow, and most such flows
REFUSED_SECONDS: Final = 60.0
REFUSED_MOST: Final = 100_000
_NONE: Final[tuple[tuple[Backend, ...], float]] = ((), 0.0)


class Adopter:
    """Adopts flows for a datapath. ``limit`` is the most flows in a second, 0 for no limit.
    ``reason`` is why the last packet's flow was not adopted.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.reason = NO_FLOW
        self.own = OwnConnections()
        self._second = 0
        self._asked = 0  # in that second
        self._ended: dict[bytes, float] = {}  # keys of TCP flows with a deadline; the oldest first
        #: which backends have refused a flow, and until when that counts; the oldest first
        self._refused: dict[bytes, tuple[tuple[Backend, ...], float]] = {}

    def adopt(
        self,
        balancer: Balancer,
        flows: FlowTable,
        protocol: int,
        key: bytes,
        now: float,
        *,
        service: VirtualService | None,
        speaks: bool = False,
    ) -> Flow | None:
        """The flow, now in ``flows``, of a client's packet with ``key`` to ``service``, or of a
        backend's, to none; None, and a ``reason``, if it is not adopted. ``flows`` must have none
        for the packet. ``speaks``: it is a segment with data or FIN, which its receiver has to
        acknowledge.
        """
        if service is not None:
            translation = self.owner(balancer, service, protocol, key, now)
            forward, state = key, ADOPTED
        else:
            translation = self._by_backend(balancer, flows, protocol, key, now, speaks=speaks)
            forward = b"" if translation is None else translation.forward_key(key)
            state = ADOPTED_BACKEND
        if translation is None:
            return None
        reverse = translation.reverse_key(forward)
        before = flows.forward[protocol].get(forward)
        if reverse in flows.reverse[protocol] or not (before is None or _is_guess(flows, before)):
            self.reason = COLLISION
            return None
        if before is not None:
            flows.forget(before, now)
        if not flows.make_room(protocol, now):
            self.reason = NO_FLOW if self.own.answer(key) else TABLE_FULL
            return None
        flow = flows.open(protocol, forward, reverse, translation, now)
        translation.backend.adopted += 1
        if protocol == UDP:
            flows.move(flow, UDP_ANSWERED, now)
        elif not (translation.direct or translation.routed):
            flows.move(flow, state, now)
        return flow

    def owner(
        self, balancer: Balancer, service: VirtualService, protocol: int, key: bytes, now: float
    ) -> Translation | None:
        """The translation of the flow of a client's packet to ``service`` with ``key``; None, and a
        ``reason``, if it is not adopted.
        """
        self.reason = NO_FLOW
        if self._ended and self._ended.pop(key, 0.0) > now:
            self._ended[key] = now + ENDED_SECONDS
            return None
        if service.adoption is None or not self._is_within_limit(now):
            return None
        flow = NewFlow(protocol, key, now)
        refused, until = self._refused.get(key, _NONE) if self._refused else _NONE
        found = balancer.owner(flow, refused, service) if now < until else None
        return balancer.owner(flow, (), service) if found is None else found

    def end(self, key: bytes, now: float) -> None:
        """The TCP flow with the client's ``key`` has ended here, and is not adopted."""
        self._ended.pop(key, None)
        self._ended[key] = now + ENDED_SECONDS
        if len(self._ended) > ENDED_MOST:
            del self._ended[next(iter(self._ended))]

    def begin(self, key: bytes) -> None:
        """A SYN with ``key`` has opened a flow: the one before may have ended."""
        if self._ended:
            self._ended.pop(key, None)

    def begin_own(self, balancer: Balancer, key: bytes, now: float) -> None:
        """A SYN with ``key`` to no service: a connection of a backend's own may begin."""
        size = (len(key) - 4) // 2
        if balancer.services.possible_answers(TCP, key[:size], key[-4:-2]):
            self.own.add(key, now)

    def reject(self, balancer: Balancer, flow: Flow, now: float) -> bool:
        """The backend of ``flow`` has answered RST. Returns whether another backend may have the
        flow: the RST must not reach the client then, and ``flow`` is to be forgotten.
        """
        if flow.state not in (ADOPTED, ADOPTED_FIN):
            return False
        key = flow.forward_key
        before, until = self._refused.pop(key, _NONE)
        refused = (*(before if now < until else ()), flow.translation.backend)
        if balancer.owner(NewFlow(flow.protocol, key, now), refused) is None:
            return False
        self._refused[key] = refused, now + REFUSED_SECONDS
        if len(self._refused) > REFUSED_MOST:
            del self._refused[next(iter(self._refused))]
        return True

    @staticmethod
    def stray(balancer: Balancer, protocol: int, key: bytes) -> int:
        """The reason for refusing a packet with ``key`` that opens no flow."""
        size = (len(key) - 4) // 2
        if balancer.services.is_source(protocol, key[:size], key[-4:-2]):
            return FROM_FORGOTTEN
        return NO_FLOW if protocol == TCP else NO_SERVICE

    def _by_backend(
        self,
        balancer: Balancer,
        flows: FlowTable,
        protocol: int,
        reverse_key: bytes,
        now: float,
        *,
        speaks: bool,
    ) -> Translation | None:
        """The translation of the flow of a packet that is not to a service."""
        forward = flows.forward[protocol]

        def guessed(key: bytes) -> bool:
            flow = forward.get(key)
            return flow is not None and _is_guess(flows, flow)

        found = balancer.answering(protocol, reverse_key, guessed)
        if found is None:
            self.reason = self.stray(balancer, protocol, reverse_key)
            if speaks and self.reason == NO_FLOW and not self.own.has(reverse_key, now):
                return self._by_asking(balancer, forward, reverse_key, now)
        elif found.lost:
            self.reason = FROM_LOST
        elif self._ended and self._ended.get(found.forward_key(reverse_key), 0.0) > now:
            self.reason = FROM_FORGOTTEN
        elif self._is_within_limit(now):
            return found
        return None

    def _by_asking(
        self, balancer: Balancer, forward: FlowIndex, reverse_key: bytes, now: float
    ) -> Translation | None:
        """The translation of a flow that may also be a connection of the backend's own."""
        found = balancer.answering(TCP, reverse_key, lambda key: forward.get(key) is None)
        if found is None or found.lost or not self._is_within_limit(now):
            self.reason = NO_FLOW
            return None
        self.own.ask(reverse_key, now)
        return found

    def _is_within_limit(self, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._asked = second, 0
        self._asked += 1
        if not self.limit or self._asked <= self.limit:
            return True
        self.reason = ADOPTION_LIMIT
        return False


def _is_guess(flows: FlowTable, flow: Flow) -> bool:
    """Whether ``flow`` is one that a client's packet has led to a backend which has not gone on
    with it. (A query of `udp_reply` is a new one each time: its answer is not late.)
    """
    flows.refresh(flow)
    if flow.state == UDP_NEW:
        return not flow.translation.udp_reply
    return flow.state in (ADOPTED, ADOPTED_FIN)
