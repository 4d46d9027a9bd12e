"""The packet path of ``forward: offload``: the first packet of a flow in, a mark out.

The kernel carries the flow: it queues what conntrack calls new, and translates the mark of the
verdict into the backend (``rules.nft``). So Python sees one packet a flow, or the head of one,
and changes nothing in it.

A first packet can come again before the kernel knows of the flow (a repeated SYN, the next
datagram of a burst), so what was decided is remembered for a while: the same packet gets the same
backend. A SYN with another sequence number is not the same: the client has used its port again
(RFC 9293, 3.4.1: a new connection has a new one), and its flow is decided about anew. A TCP
segment other than a SYN that opens no flow passes unmarked, as in ``nat``: at a local VIP it meets
the local stack, which answers RST.

With ``affinity: client`` a client is bound from its last new flow on: when a flow ends is not
seen here.

Rules: as everywhere in the core, no bytes raise; the cost does not grow with what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.packet import ACK, ECHO_REQUEST, FIN, FLOW, RST, SYN, parse
from paraglider.core.pool import Backend
from paraglider.core.service import Service
from paraglider.core.strategies.base import NewFlow
from paraglider.core.verdict import (
    MARK,
    NO_FLOW,
    NO_SERVICE,
    REASONS,
    TRUNCATED,
    VERDICT_OF,
)

#: bytes of a packet that are enough to decide: headers with options or some extension headers
HEAD: Final = 128
#: seconds for which a decision is remembered at least, and twice as long at most
REMEMBERED: Final = 15.0
#: decisions of one generation; with more the older generation goes sooner
MOST_REMEMBERED: Final = 1 << 16


class FirstPacketDatapath:
    """Decides for first packets; ``marks`` has the 32-bit mark of every backend.

    ``counts`` counts packets by reason, in the order of ``verdict.REASONS``. ``decided``, where
    set, is told of every new flow: protocol, key, backend. ``live``, where set, is given the
    flows decided for each mark so far, and gives the live ones, for a strategy that asks for them;
    a backend's ``flows`` is that plus what was decided since the last ``expire``, so that a burst
    in between counts too.
    """

    def __init__(
        self,
        balancer: Balancer,
        marks: Mapping[Backend, int],
        remembered: float = REMEMBERED,
        bound: int = MOST_REMEMBERED,
    ) -> None:
        self.balancer = balancer
        self.counts = [0] * len(REASONS)
        self.decided: Callable[[int, bytes, Backend], None] | None = None
        self.live: Callable[[Mapping[int, int]], Mapping[int, int]] | None = None
        self._remembered = remembered
        self._bound = bound
        # What was decided, and the sequence number of the SYN that asked for it.
        self._young: dict[tuple[int, bytes], tuple[Backend, int]] = {}
        self._old: dict[tuple[int, bytes], tuple[Backend, int]] = {}
        self._turn_at = 0.0
        self.set_marks(marks)

    def set_marks(self, marks: Mapping[Backend, int]) -> None:
        """These are all backends from here on; decisions for others are forgotten."""
        self._verdicts = {backend: MARK | mark << 8 for backend, mark in marks.items()}
        self._marks = tuple(marks.items())
        self._young = {which: made for which, made in self._young.items() if made[0] in marks}
        self._old = {which: made for which, made in self._old.items() if made[0] in marks}

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the packet whose head is ``buf[offset:offset + length]``.

        ``checksum`` is not looked at; ``now`` is monotonic seconds.
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
                if buf[at] & (FIN | SYN | RST | ACK) != SYN:
                    return self._refuse(NO_FLOW)
                sequence = int.from_bytes(buf[at - 9 : at - 5], "big")
        elif parsed.kind != ECHO_REQUEST:
            return self._refuse(NO_FLOW)
        service = self.balancer.find(parsed.protocol, parsed.key)
        if service is None:
            return self._refuse(NO_SERVICE)
        return self.decide(service, parsed.protocol, parsed.key, now, sequence)

    def decide(self, service: Service, protocol: int, key: bytes, now: float, sequence: int) -> int:
        """The verdict for a packet that may open a flow of ``service``; ``sequence`` is a SYN's
        sequence number, 0 for other protocols.
        """
        if now >= self._turn_at or len(self._young) >= self._bound:
            self._turn(now)
        which = (protocol, key)
        made = self._young.get(which) or self._old.get(which)
        if made is not None and made[1] == sequence and made[0].ready:
            if protocol == TCP:  # the kernel knows of no answer
                made[0].unanswered += 1
            return self._verdicts[made[0]]
        backend = self.balancer.choose(service, NewFlow(protocol, key, now), _never)
        if backend is None:
            return self._refuse(self.balancer.refusal(service, protocol))
        self._young[which] = (backend, sequence)
        backend.flows += 1
        backend.conns += 1
        if service.affinity is not None:
            client = key[: (len(key) - 4) // 2]
            known = service.affinity.find(client, now) is not None
            service.affinity.hold(client, backend)
            if known:  # answers pass unseen: a client that comes back is no random address
                service.affinity.confirm(client)
            service.affinity.release(client, now)
        if self.decided is not None:
            self.decided(protocol, key, backend)
        return self._verdicts[backend]

    def expire(self, now: float) -> None:
        """Forget old decisions, and take over the count of live flows; called by the clock."""
        if now >= self._turn_at:
            self._turn(now)
        live: Mapping[int, int] = {}
        if self.live is not None:
            live = self.live({mark: backend.conns for backend, mark in self._marks})
        for backend, mark in self._marks:
            backend.flows = live.get(mark, 0)

    def __len__(self) -> int:
        """Decisions remembered now."""
        return len(self._young) + len(self._old)

    def _turn(self, now: float) -> None:
        """Begin a new generation; what is older than two goes."""
        self._old = self._young if now < self._turn_at + self._remembered else {}
        self._young = {}
        self._turn_at = now + self._remembered

    def _refuse(self, reason: int) -> int:
        self.counts[reason] += 1
        return VERDICT_OF[reason]


def _never(_backend: Backend) -> bool:
    """No backend is ever passed over: the kernel gives a colliding flow another client port."""
    return False
