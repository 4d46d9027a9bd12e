"""``forward: dsr`` with ``decide: hash``: BPF sends every packet where its hash leads."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import pytest
from carrying import Carried, opened
from directing import (
    FAMILIES,
    assert_one_backend_learns,
    behind_a_narrow_link,
    directed,
    hold_vips,
    service,
)
from evenly import EVEN
from failing import control as control_of
from offloading import seen_by_python
from peer import pattern
from waiting import wait_until

from paraglider.bpf.layout import NO_ENTRIES
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

BIG = 2_000_000
SIZE = 300_000
SAME, BULK = 81, 9000  # the ports of `source`, and of transfers


def hashed(family: int, **changes: Any) -> dict[str, Any]:
    """The service of ``family``, by a hash of each packet."""
    return service(family, **{"strategy": "maglev", "decide": "hash", "carrier": "bpf", **changes})


def entries(carried: Carried) -> int:
    """The number of flows that have an entry."""
    return sum(len(carried.flags(protocol, family)) for protocol in (6, 17) for family in FAMILIES)


def decided(running: LabBalancer) -> Carried:
    """The balancer's carrier, once the program decides for all services."""
    services = control_of(running).get("services")
    assert {row["decided_by"] for row in services} == {"kernel"}
    carried = Carried(running)
    carried.decide(len(services), NO_ENTRIES)  # until then the workers do
    return carried


class World(NamedTuple):
    """The network, and the balancer at work in it."""

    net: Topology
    running: LabBalancer
    carried: Carried


@pytest.fixture(scope="module")
def world(sharing: Any) -> World:
    """One for all tests: HTTP by `maglev` and by `source`, UDP echo, transfers; two workers."""
    shared = sharing(direct=True)
    hold_vips(shared.net)
    shared.serve(http=(80, SAME))
    shared.serve_peer(BULK)
    services = [
        made
        for f in FAMILIES
        for made in (
            hashed(f),
            hashed(f, name=f"same{f}", ports=SAME, strategy="source"),
            hashed(f, name=f"echo{f}", protocol="udp", ports=5353),
            hashed(f, name=f"bulk{f}", ports=BULK),
        )
    ]
    running = shared.balancer(shared.config(*services, workers=2))
    return World(shared.net, running, decided(running))


def test_no_packet_has_a_flow(world: World, peer: Any) -> None:
    """Uploads and downloads of both families are complete, and no packet of theirs passes a worker;
    neither map nor worker has a flow.
    """
    net, running, carried = world
    wait_until(lambda: transfers(net, peer, 1000) and carried.counted("stateless"), running.log)
    wait_until(lambda: entries(carried) == 0, running.log)  # of what a worker decided before
    asked, before = seen_by_python(net), carried.counted("stateless")
    for _ in range(3):
        transfers(net, peer, BIG)
    assert seen_by_python(net) == asked
    assert carried.counted("stateless") > before
    assert entries(carried) == 0
    wait_until(lambda: control_of(running).get("carrier")["flows"] == 0, running.log)


def transfers(net: Any, peer: Any, size: int, port: int = BULK) -> bool:
    """Have ``size`` bytes move each way, by both families, each on a connection of its own."""
    for family in FAMILIES:
        for direction in ("down", "up"):
            result = peer(net.client, direction, VIP[family], port, size)
            assert result["sent"] == result["arrived"]
    return True


def test_clients_keep_their_backend(world: World, ask: Any) -> None:
    """By `source` all connections and datagrams of a client, by `maglev` they spread."""
    for family in FAMILIES:
        assert len(ask(world.net, "tcp", VIP[family], SAME, 8)) == 1
        assert len(ask(world.net, "udp", VIP[family], 5353, 40)) == 3
    assert entries(world.carried) == 0


def test_an_error_reaches_the_backend(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """The error of a router with a smaller MTU about an answer reaches the backend that sent it: a
    worker computes the same hash.
    """
    net = behind_a_narrow_link(topology, serve_peer)
    decided(balancer(net, config(*(hashed(family) for family in FAMILIES), workers=2)))
    assert_one_backend_learns(net, peer)


def test_a_backend_leaves(world: World, ask: Any) -> None:
    """New connections go to the others; it may return. A connection that is being opened while the
    table changes may be reset, so the next begins when the program has the new one.
    """
    net, running, carried = world
    control = control_of(running)
    for family in FAMILIES:
        name = f"web{family}"

        def answering(backends: int, family: int = family, name: str = name) -> set[str]:
            carried.until(lambda: carried.picks(name) == backends, f"{name}: {backends} backends")
            return set(ask(net, "tcp", VIP[family], 80, 20))

        assert answering(3) == EVEN.keys()
        first = control.get("backends", service=name)[0]["backend"]
        control.set_backend(name, first, state="maint")
        assert answering(2) == EVEN.keys() - {"backend1"}
        control.set_backend(name, first, state="ready")
        assert answering(3) == EVEN.keys()


class Earlier:
    """A connection of a client that has asked for ``SIZE`` bytes, and takes the rest of them when
    it ends; ``done``: it has sent its FIN too.
    """

    def __init__(self, net: Any, family: int, *, done: bool) -> None:
        self._sock = opened(net.client, family, socket.SOCK_STREAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        self._sock.connect((VIP[family], 80))
        self._asks = 0 if done else 1
        self._ask()
        if done:
            self._sock.shutdown(socket.SHUT_WR)
        self._received = bytearray(self._sock.recv(1000))

    def _ask(self) -> None:
        self._sock.sendall(f"down {SIZE}\n".encode())

    def end(self) -> None:
        """All arrives, also what it asks for now if it has not sent its FIN."""
        if self._asks:
            self._ask()
        wanted = pattern(SIZE) * (1 + self._asks)
        while len(self._received) < len(wanted):
            self._received += self._sock.recv(1 << 20)
        assert self._received == wanted
        self._sock.close()


@pytest.mark.parametrize(("decide", "strategy"), [("python", "rr"), ("auto", "source")])
def test_flows_from_before_keep_their_backends(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any, decide: str,
    strategy: str,
) -> None:  # fmt: skip
    """A reload to `decide: hash` leaves established and half-closed flows to their backends until
    they end; then no flow and no entry is left. New connections get none.
    """
    net = directed(topology)
    serve_peer(net, 80)
    keys = {"decide": decide, "strategy": strategy}
    running = balancer(net, config(*(hashed(family, **keys) for family in FAMILIES)))
    carried = Carried(running)
    if decide == "auto":
        carried.decide(len(FAMILIES))
    made = [Earlier(net, f, done=done) for f in FAMILIES for done in (False, True) * 4]
    control = control_of(running)

    def flows() -> list[Any]:
        found: list[Any] = control.get("flows")["flows"]
        return found

    running.config.write_text(config(*(hashed(family) for family in FAMILIES)))
    control.post("reload", {})
    decided(running)
    # A worker may hear late of those that the kernel has decided.
    wait_until(lambda: [row["carrier"] for row in flows()] == ["bpf"] * len(made), running.log)
    assert entries(carried) == len(made)
    with carried.counting("stateless"):
        transfers(net, peer, 1000, 80)
    assert entries(carried) == len(made)
    for each in made:
        each.end()
    ended = len(made) // 2
    carried.until(lambda: entries(carried) == ended, "no entry of a flow that FINs have closed")
    for family in FAMILIES:  # half-closed ones, which nobody sees end
        control.post("flows/kill", {"service": f"web{family}"})
    carried.until(lambda: not entries(carried), "no entry of a flow that was killed")
    wait_until(lambda: {row["state"] for row in flows()} <= {"time-wait"}, running.log)
    assert control.get("carrier")["refused"] == 0
