"""The flow table under half an hour of load and under floods; time is an argument.

Rates and tables are realistic ones divided by SCALE, so that half an hour of 10,000 connections per
second takes seconds: a table of a million flows becomes 250 flows with 2.5 connections per second.
The ratio of a flow's lifetime to the rate of new flows is unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count

import pytest
from packets import V4, packed, service

from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import MARK, REWRITTEN
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.one_sided import OneSidedDatapath

SCALE = 4000
FLOOD_SCALE = 500
MILLION = 1_000_000
HALF_AN_HOUR = 1800.0
LEASE = 1 << 8
FIN, SYN, RST, ACK = 1, 2, 4, 16
VIP = packed(V4.vip)
BACKENDS = [packed(address) for address in V4.backends]
METHODS = pytest.mark.parametrize("method", ["nat", "direct", "dsr"])

Play = Iterator[float]
"""Somebody who sends: yields for how many seconds it pauses."""


class Field:
    """One worker with ``method``, its clients and backends, and a clock."""

    def __init__(self, method: str, bound: int, **keys: object) -> None:
        self.method = method
        protocols = {"protocols": (TCP, UDP), "ports": ((53, 80),)}
        made: VirtualService = service(
            V4, **protocols, direct=method != "nat", routed=method == "dsr", **keys
        )
        self.table = FlowTable(FlowTimeouts(), bound)
        balancer = Balancer(ServiceMap([made]))
        self.path: NatDatapath | OneSidedDatapath = NatDatapath(balancer, self.table)
        if method == "dsr":
            marks = {backend: n << 9 for n, backend in enumerate(made.pool.backends, 1)}
            self.path = OneSidedDatapath(balancer, self.table, LeaseCarrier(marks, LEASE))
        self.now = 0.0
        self.most = 0
        self._order = count()
        self._waiting: list[tuple[float, int, Play]] = []

    def begin(self, play: Play, at: float = 0.0) -> None:
        """``play`` begins ``at`` seconds from now."""
        heappush(self._waiting, (self.now + at, next(self._order), play))

    def run(self, until: float) -> None:
        """Run all participants until then; the worker's clock ticks once a second."""
        tick = self.now
        while self._waiting and self._waiting[0][0] < until:
            self.now, _, play = heappop(self._waiting)
            while tick <= self.now:
                self.table.expire(tick, 100_000)
                tick += 1
            pause = next(play, None)
            self.most = max(self.most, len(self.table))
            if pause is not None:
                heappush(self._waiting, (self.now + pause, next(self._order), play))
        self.now = until
        self.table.expire(until, 100_000)

    def sent(
        self, client: bytes, port: int, flags: int, seq: int = 0, ack: int = 0, vip_port: int = 80
    ) -> bytes:
        """The backend that gets a client's packet; empty if none does. Without flags a datagram."""
        protocol = TCP if flags else UDP
        packet = _packet(client, VIP, port, vip_port, protocol, flags, seq, ack)
        verdict = self.path.handle(packet, 0, len(packet), 0, self.now)
        if verdict & 0xFF == MARK:
            return (verdict >> 8 & ~LEASE).to_bytes(4, "big")
        return bytes(packet[16:20]) if verdict == REWRITTEN else b""

    def answered(
        self, backend: bytes, client: bytes, port: int, flags: int, seq: int, ack: int, source: int
    ) -> bool:
        """Whether a backend's answer reaches the client as the VIP's."""
        if self.method != "nat":
            return True  # it goes past the balancer
        protocol = TCP if flags else UDP
        packet = _packet(backend, client, source, port, protocol, flags, seq, ack)
        verdict = self.path.handle(packet, 0, len(packet), 0, self.now)
        return verdict == REWRITTEN and packet[12:16] == VIP


def _packet(
    source: bytes, to: bytes, sport: int, dport: int, protocol: int, flags: int, seq: int, ack: int
) -> bytearray:
    if protocol == UDP:
        transport = struct.pack("!HHHHIII", sport, dport, 20, 0, 0, 0, 0)
    else:
        transport = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 0, 0, 0)
    size = 20 + len(transport)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, protocol, 0) + source + to
    return bytearray(head + transport)


class Client:
    """A client with its own address, and whether it was ``served``."""

    def __init__(self, field: Field, number: int) -> None:
        self.field = field
        self.address = bytes((100, number >> 16 & 255, number >> 8 & 255, number & 255))
        self.port = 1024 + number % 60_000
        self.served = False
        self.seq, self.peer = 1000 * number & 0xFFFFFFFF, 77_000 * number & 0xFFFFFFFF
        self._backend = b""

    def exchange(self, flags: int, answer: int | None, sent: int = 0, received: int = 0) -> bool:
        """A segment of the client, and the backend's answer to it; both reach the other end."""
        field = self.field
        acknowledged = self.peer if flags & ACK else 0
        backend = field.sent(self.address, self.port, flags, self.seq, acknowledged)
        self._backend = self._backend or backend
        self.seq = (self.seq + sent) & 0xFFFFFFFF
        fine = bool(backend) and backend == self._backend
        if answer is not None and fine:
            ends = (backend, self.address, self.port, answer, self.peer, self.seq)
            fine = field.answered(*ends, source=80)
            self.peer = (self.peer + received) & 0xFFFFFFFF
        return fine

    def opens(self, rtt: float = 0.1) -> Play:
        """The handshake and one exchange of data."""
        fine = self.exchange(SYN, SYN | ACK, 1, 1)
        yield rtt
        fine &= self.exchange(ACK, None)
        fine &= self.exchange(ACK, ACK, 100, 1000)
        yield rtt
        fine &= self.exchange(ACK, ACK, 100, 1000)
        yield rtt
        fine &= self.exchange(ACK, None)
        self.served = fine

    def visits(self) -> Play:
        """A short connection, which the client ends."""
        yield from self.opens()
        fine = self.served
        fine &= self.exchange(FIN | ACK, FIN | ACK, 1, 1)
        fine &= self.exchange(ACK, None)
        self.served = fine

    def asks(self) -> Play:
        """A query and its answer."""
        field = self.field
        backend = field.sent(self.address, self.port, 0, vip_port=53)
        yield 0.02
        ends = (backend, self.address, self.port, 0, 0, 0)
        self.served = bool(backend) and field.answered(*ends, source=53)


def crowd(
    field: Field, rate: float, seconds: float, play: Callable[[Client], Play], first: int = 0
) -> list[Client]:
    """``rate`` clients a second, each of which does ``play``."""
    clients = [Client(field, first + number) for number in range(int(rate * seconds))]
    for number, client in enumerate(clients):
        field.begin(play(client), number / rate)
    return clients


def lasting(field: Field, number: int) -> list[Client]:
    """Clients with an established connection that is then idle."""
    clients = [Client(field, 1_000_000 + n) for n in range(number)]
    for client in clients:
        field.begin(client.opens())
    field.run(field.now + 5)
    assert all(client.served for client in clients)
    return clients


def share(clients: list[Client]) -> float:
    """The share of ``clients`` that were served."""
    return sum(client.served for client in clients) / len(clients)


def nothing_is_left(field: Field) -> bool:
    """After all timeouts the table is as empty as at first."""
    field.run(field.now + 10_000)
    wheels = field.table._wheels
    return len(field.table) == 0 and not any(wheel._buckets for wheel in wheels)


@METHODS
def test_ten_thousand_connections_a_second_for_half_an_hour(method: str) -> None:
    """18 million connections beside 100,000 that last, in a table of a million flows."""
    field = Field(method, MILLION // SCALE)
    live = lasting(field, 100_000 // SCALE)
    clients = crowd(field, 10_000 / SCALE, HALF_AN_HOUR, Client.visits)
    field.run(field.now + HALF_AN_HOUR + 5)
    assert share(clients) == 1.0
    assert all(client.exchange(ACK, ACK, 1, 1) for client in live)
    assert field.most <= field.table.bound
    assert nothing_is_left(field)


@METHODS
def test_ten_thousand_queries_a_second_for_half_an_hour(method: str) -> None:
    """18 million queries, each of another port, in a tenth of the table: answered flows end."""
    field = Field(method, MILLION // SCALE, udp_reply=5)
    live = lasting(field, 100_000 // SCALE)
    clients = crowd(field, 10_000 / SCALE, HALF_AN_HOUR, Client.asks)
    field.run(field.now + HALF_AN_HOUR + 5)
    assert share(clients) == 1.0
    assert all(client.exchange(ACK, ACK, 1, 1) for client in live)
    assert field.most <= len(live) + field.table.bound // 10
    assert field.table.evicted == 0
    assert nothing_is_left(field)


@METHODS
def test_queries_without_udp_reply_fill_the_table_and_all_are_served(method: str) -> None:
    """The same without ``udp_reply``, beside connections: the table is full, all are served."""
    field = Field(method, MILLION // SCALE)
    live = lasting(field, 100_000 // SCALE)
    queries = crowd(field, 10_000 / SCALE, 600, Client.asks)
    visits = crowd(field, 2_000 / SCALE, 600, Client.visits, first=500_000)
    field.run(field.now + 605)
    assert share(queries) == share(visits) == 1.0
    assert all(client.exchange(ACK, ACK, 1, 1) for client in live)
    assert field.most == field.table.bound


def flood(field: Field, kind: str, rate: float, seconds: float, networks: int) -> Play:
    """Packets with forged sources, in ``networks`` networks of 256 addresses."""
    for number in range(int(rate * seconds)):
        network = number % networks
        client = bytes((10, network >> 8 & 255, network & 255, number // networks & 255))
        port = 1024 + number * 7 % 60_000
        if kind == "udp":
            field.sent(client, port, 0, vip_port=54)
        else:
            backend = field.sent(client, port, SYN if kind != "acks" else ACK, 5, 6)
            if kind == "pairs" and backend:
                field.answered(backend, client, port, SYN | ACK, 0x5000_0000 ^ number, 6, 80)
            if kind != "syn":
                field.sent(client, port, ACK, 6, 7)
        yield 1 / rate


@METHODS
@pytest.mark.parametrize("kind", ["syn", "pairs", "acks", "udp"])
@pytest.mark.parametrize("networks", [1, 50_000])
def test_a_flood_beside_clients(method: str, kind: str, networks: int) -> None:
    """100,000 forged packets a second, from one network or from everywhere, beside 1,000
    connections a second and 20,000 that last: all but one of a hundred are served, and no
    established flow is lost.
    """
    field = Field(method, MILLION // FLOOD_SCALE)
    live = lasting(field, 20_000 // FLOOD_SCALE)
    field.begin(flood(field, kind, 100_000 / FLOOD_SCALE, 40, networks))
    clients = crowd(field, 1000 / FLOOD_SCALE, 39, Client.visits)
    field.run(field.now + 41)
    assert share(clients) >= 0.99
    assert all(client.exchange(ACK, ACK, 1, 1) for client in live)
    assert field.most <= field.table.bound
    assert nothing_is_left(field)
