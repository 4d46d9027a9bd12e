"""The BPF carrier against anything that may happen, in any order, across restarts.

Clients, backends, the program, the clock, the operator and kill -9 act at random. Whatever they do,
an entry exists if and only if its flow is in the table and carried, and no connection that lives
loses its record or its backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bpf_world import MemoryRing, Program, Worker, client_key, memory_maps, web
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from packets import V4, backend

from paraglider.core.flow import TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_states import SYN_SENT
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.pool import Event
from paraglider.core.restore import Translations, restore
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.entry import ALIASED, PLAIN

RECORDS = 64
TIMEOUTS = FlowTimeouts(syn=8, established=30, closed_rst=2, closed_fin=6, udp=10)
#: seconds by which a flow may be known to be idle for longer than it is
SLACK = 1.0

clients = st.integers(0, 3)
sides = st.booleans()


@dataclass
class Connection:
    """What both ends know of one: ``acked`` that the client heard the backend, ``alive`` that
    nobody has ended it.
    """

    backend: bytes
    reply: bytes
    answered: bool = False
    acked: bool = False
    fins: set[bool] = field(default_factory=set)
    last: float = 0.0
    alive: bool = True


class Anything(RuleBasedStateMachine):
    """One worker after the other with the same maps, ring and journal."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.maps = memory_maps(10)
        self.ring = MemoryRing(4)
        self.program = Program(self.maps, {0: self.ring})
        self.memory = bytearray(size_of(RECORDS))
        self.connections: dict[tuple[int, bytes], Connection] = {}
        self.fresh_journal()
        self.worker = self.started(self.services())

    def fresh_journal(self) -> None:
        """An empty journal."""
        self.memory[:] = bytes(len(self.memory))
        write_header(self.memory, RECORDS, bytes(16))
        Journal(self.memory).complete = True

    @staticmethod
    def services() -> list[VirtualService]:
        """One whose replies have an origin, and one whose flows are aliased."""
        backends = [backend(address) for address in V4.backends[:2]]
        others = [backend(address) for address in V4.backends[:2]]
        return [
            web(backends=backends, life={"on_down": "reset"}),
            web(name="wide", vip=V4.other_vip, ports=((80, 1080),), backends=others),
        ]

    def started(self, services: list[VirtualService]) -> Worker:
        """A worker that continues with what there is."""
        one = Worker(services, self.maps, self.ring, self.program, bound=RECORDS, timeouts=TIMEOUTS)
        one.carrier.compactor.age = 0.0  # with the next tick
        restore(one.flows, Journal(self.memory), Translations(services), self.now)
        return one

    def packet(
        self, protocol: int, key: bytes, flags: str = "", *, seq: int = 0, ack: int = 0
    ) -> None:
        """Send one now."""
        self.worker.packet(protocol, key, flags, self.now, seq=seq, ack=ack)

    def flow(self, protocol: int, client: int) -> Flow | None:
        """The worker's flow of a client."""
        return self.worker.flows.forward[protocol].get(self.key(client))

    @staticmethod
    def key(client: int) -> bytes:
        """Two clients of each service."""
        return client_key(1000 + client, vip=V4.vip if client % 2 else V4.other_vip)

    def of(self, protocol: int, client: int) -> Connection | None:
        """The connection of a client as both ends know it."""
        found = self.connections.get((protocol, self.key(client)))
        return found if found is not None and found.alive else None

    @rule(client=clients)
    def syn(self, client: int) -> None:
        """A client connects, or does so again."""
        self.packet(TCP, self.key(client), "S")
        flow, known = self.flow(TCP, client), self.of(TCP, client)
        if known is None and flow is not None and flow.state == SYN_SENT:
            self.connections[TCP, flow.forward_key] = Connection(
                flow.translation.backend.address, flow.reverse_key, last=self.now
            )

    @rule(client=clients)
    def syn_ack(self, client: int) -> None:
        """The backend answers."""
        known = self.of(TCP, client)
        if known is not None and not known.acked and not known.fins:
            self.packet(TCP, known.reply, "SA", seq=70)
            known.answered = True

    @rule(client=clients)
    def ack(self, client: int) -> None:
        """The client acknowledges: the connection is established."""
        known = self.of(TCP, client)
        if known is not None and known.answered and True not in known.fins:
            self.packet(TCP, self.key(client), "A", ack=71)
            known.acked, known.last = True, self.now

    @rule(client=clients)
    def connect(self, client: int) -> None:
        """All three segments, as most connections begin."""
        self.syn(client)
        self.syn_ack(client)
        self.ack(client)

    @rule(client=clients, back=sides)
    def segment(self, client: int, back: bool) -> None:
        """Either side sends."""
        known = self.of(TCP, client)
        if known is not None and known.acked and back not in known.fins:
            self.packet(TCP, known.reply if back else self.key(client), "PA", ack=71)
            known.last = self.now

    @rule(client=clients, back=sides)
    def fin(self, client: int, back: bool) -> None:
        """Either side has sent all that it has; after both the connection is over."""
        known = self.of(TCP, client)
        if known is not None and known.acked and back not in known.fins:
            self.packet(TCP, known.reply if back else self.key(client), "FA", ack=71)
            known.fins.add(back)
            known.last = self.now
            known.alive = len(known.fins) < 2

    @rule(client=clients, back=sides)
    def reset(self, client: int, back: bool) -> None:
        """Either side gives up."""
        known = self.of(TCP, client)
        if known is not None:
            self.packet(TCP, known.reply if back else self.key(client), "R")
            known.alive = False

    @rule(client=clients)
    def odd_segment(self, client: int) -> None:
        """One that the program does not carry, with IP options, say."""
        known = self.of(TCP, client)
        if known is not None and known.acked and not known.fins:
            attached, self.program.attached = self.program.attached, False
            self.packet(TCP, self.key(client), "A", ack=71)
            self.program.attached = attached
            known.last = self.now

    @rule(client=clients, back=sides)
    def datagram(self, client: int, back: bool) -> None:
        """Either side sends one; a backend answers only."""
        known, flow = self.of(UDP, client), self.flow(UDP, client)
        if back:
            if known is not None and flow is not None:
                self.packet(UDP, known.reply)
            return
        self.packet(UDP, self.key(client))
        flow = self.flow(UDP, client)
        if flow is not None:
            self.connections[UDP, flow.forward_key] = Connection(
                flow.translation.backend.address, flow.reverse_key, acked=True, last=self.now
            )

    @rule(seconds=st.sampled_from([0.05, 3.0, 7.0, 20.0]))
    def tick(self, seconds: float) -> None:
        """Time passes, and the worker's tick comes."""
        self.now += seconds
        self.worker.flows.expire(self.now)
        self.worker.carrier.sync(self.now)
        for (protocol, _), known in self.connections.items():
            limit = 30 if protocol == TCP else 10
            limit = limit if known.acked else 8
            known.alive &= self.now - known.last < limit - SLACK

    @rule(client=clients, protocol=st.sampled_from([TCP, UDP]))
    def kill(self, client: int, protocol: int) -> None:
        """The operator ends a flow."""
        flow = self.flow(protocol, client)
        if flow is not None:
            self.worker.path.end(flow, self.now)
            self.end(protocol, self.key(client))

    @rule(which=st.integers(0, 1))
    def lose(self, which: int) -> None:
        """A backend fails its checks: its flows are over."""
        pool = self.worker.path.balancer.services.services[0].pool
        if pool.apply(pool.backends[which], Event.CHECK_FAILED):
            for (_, key), known in self.connections.items():
                if known.backend == pool.backends[which].address and key[4:8] == self.key(1)[4:8]:
                    known.alive = False

    @rule(which=st.integers(0, 1))
    def return_(self, which: int) -> None:
        """A backend is well again."""
        pool = self.worker.path.balancer.services.services[0].pool
        pool.apply(pool.backends[which], Event.CHECK_PASSED)

    @rule(room=st.sampled_from([0, 1, 4, 100]))
    def ring_size(self, room: int) -> None:
        """Events may be lost from here on, or not."""
        self.ring.room = room

    @rule(on=st.booleans())
    def switch(self, on: bool) -> None:
        """`paraglider carrier`."""
        self.program.attached = on
        self.worker.carrier.switch(on)

    @rule()
    def kill_9(self) -> None:
        """The worker is gone; its successor has all backends up until it is told."""
        self.worker = self.started(self.services())
        self.worker.carrier.switch(self.program.attached)

    @rule()
    def kill_9_without_journal(self) -> None:
        """What has an entry is known by that; connections that are not answered may be lost."""
        for (protocol, key), known in self.connections.items():
            value = self.maps.flows[protocol, 4].get(key)
            known.alive &= value is not None and known.acked and self.program.attached
        self.fresh_journal()
        self.kill_9()

    def end(self, protocol: int, key: bytes) -> None:
        """A connection is over."""
        known = self.connections.get((protocol, key))
        if known is not None:
            known.alive = False

    @precondition(lambda self: self.worker.carrier.idle)
    @invariant()
    def entries_are_those_of_carried_flows(self) -> None:
        """Once a restart is settled."""
        self.worker.check()

    @invariant()
    def no_entry_is_missing(self) -> None:
        """At any time."""
        for protocol in (TCP, UDP):
            for flow in self.worker.flows.forward[protocol].values():
                if flow.carried in (PLAIN, ALIASED):
                    assert self.maps.flows[protocol, 4].get(flow.forward_key) is not None

    @invariant()
    def no_living_connection_loses_its_record(self) -> None:
        """Nor its backend, as soon as a restart is settled."""
        if not self.worker.carrier.idle:
            return
        for (protocol, key), known in self.connections.items():
            if known.alive:
                translation = self.worker.translation_of(protocol, key)
                assert translation is not None
                assert translation.backend.address == known.backend

    def teardown(self) -> None:
        """In the end every flow expires, and nothing is left in the kernel."""
        for _ in range(3):
            self.now += 200.0
            self.worker.settle(self.now)
            self.worker.flows.expire(self.now)
        assert len(self.worker.flows) == 0
        self.worker.check()
        for flows in self.maps.flows.values():
            assert not list(flows.dump())


Anything.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestAnything = Anything.TestCase
