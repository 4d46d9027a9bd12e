"""``forward: tunnel`` over real servers and clients: a router is between balancer and backends.

One network and balancer are at work for all tests by a way. The backends are set up by `paraglider
backend-setup`; this kernel may have no device for tunnels.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from directing import FAMILIES, Rounds, answers_by, assert_shares
from inside import InsideBalancer
from offloading import await_log
from processes import workers
from services import http_service, url
from sharing import Shared

from paraglider.core.encapsulation import OVERHEAD
from paraglider.lab import direct
from paraglider.lab.topology import VIP, Plan, Topology

pytestmark = pytest.mark.root

BIG = 4_000_000
BULK = 9000  # the port of transfers
NETWORK = {"public": {"interface": "eth0"}}


class Way(NamedTuple):
    """An encapsulation, a carrier, how many workers there are, and the MTU behind the router."""

    kind: str
    carrier: str
    workers: int
    narrow: int


WAYS = {
    "ipip-worker": Way("ipip", "worker", 1, 1500),
    "gue-worker": Way("gue", "worker", 2, 1400),
    "ipip-bpf": Way("ipip", "bpf", 2, 1400),
    "gue-bpf": Way("gue", "bpf", 1, 1500),
}


def ways(*names: str) -> pytest.MarkDecorator:
    """A test by these ``WAYS``, by default by all of them."""
    return pytest.mark.parametrize("world", names or WAYS, indirect=True)


class World:
    """A network with a router before the backends, which are set up, and a balancer."""

    def __init__(self, shared: Shared, way: Way) -> None:
        self.net = shared.net
        self.way = way
        self.text = shared.config(*services(way), workers=way.workers, network=NETWORK)
        self._shared = shared

    def balancer(self, **options: bool) -> InsideBalancer:
        """The balancer of the tests, or one with these options."""
        return self._shared.balancer(self.text, **options)


def services(way: Way) -> list[dict[str, Any]]:
    """HTTP, transfers and UDP echo of either family."""
    common = {
        "forward": "tunnel",
        "encapsulation": {"type": way.kind},
        "carrier": way.carrier,
    }
    echo = {"protocol": "udp", "ports": 5353}
    return [
        service
        for family in FAMILIES
        for service in (
            http_service(family, **common, ports=[80, BULK]),
            http_service(family, **{**common, **echo}, name=f"echo{family}"),
        )
    ]


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, big_file: Path
) -> Iterator[World]:
    """One for all tests by a way. The set-up of the backends is undone, and must leave nothing."""
    way = WAYS[request.param]
    directory = tmp_path_factory.mktemp("tunnels")
    plan = Plan(direct=True, far=True, backend_mtu=way.narrow)
    with Topology(plan) as net, Shared(net, directory, big_file) as shared:
        shared.serve()
        shared.serve_peer(BULK)
        made = World(shared, way)
        pins = InsideBalancer(net.balancer, directory, made.text)
        pins.hold_pins()  # those of the backends, beside balancers that come and go
        direct.set_up(net.backends, pins.config, [service["name"] for service in services(way)])
        yield made
        for backend in net.backends:
            direct.undo(backend, pins.config)
            left = backend.run(["ip", "-o", "address", "show", "dev", "lo"]).stdout
            assert not any(vip in left for vip in VIP.values())
        shared.end()
        pins.release_pins()


@pytest.fixture(autouse=True)
def _nothing_learnt(world: World) -> None:
    """The client knows no MTU of a path from a test before."""
    world.net.client.ip("route flush cache")
    world.net.client.run(["ip", "-6", "route", "flush", "cache"])


@ways()
def test_every_backend_its_share(world: World, ask: Any) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some. The backends
    see the client's address, and no answer passes the balancer.
    """
    net = world.net
    world.balancer()
    assert_shares(net, ask, world.way.workers)
    for family in FAMILIES:
        before = answers_by(net)
        seen = net.client.run(["curl", "-sS", url(family, "/from")]).stdout.strip()
        assert seen == net.client_address(family)
        net.client.run(["curl", "-sS", "-o", "/dev/null", url(family, "/big")])
        assert answers_by(net) - before < 10_000


@ways()
def test_long_transfers(world: World, peer: Any) -> None:
    """Megabytes arrive complete in each direction, also where a router far from the client has a
    narrow link behind it. The client learns what fits inside the tunnel.
    """
    net, way = world.net, world.way
    world.balancer()
    for family in FAMILIES:
        for direction in ("down", "up"):
            result = peer(net.client, direction, VIP[family], BULK, BIG)
            assert result["sent"] == result["arrived"]
        room = way.narrow - OVERHEAD[family][way.kind == "gue"]
        shown = net.client.run(["ip", "route", "get", VIP[family]]).stdout
        assert re.search(rf"\bmtu {room}\b", shown), shown
    table = net.balancer.run(["conntrack", "-L"], check=False).stdout
    assert VIP[4] not in table


@ways("ipip-worker", "gue-bpf")
def test_long_datagrams(world: World, peer: Any) -> None:
    """A datagram that the client has fragmented arrives whole, and so does one that fits the
    client's link and not the tunnel; the IPv6 client is told besides.
    """
    world.balancer()
    for family in FAMILIES:
        peer(world.net.client, "udp", VIP[family], 5353, 1452)  # the IPv6 client is told
        for size in (1400, 1452, 3000, 20000):
            result = peer(world.net.client, "udp", VIP[family], 5353, size)
            assert result["whole"], (family, size, result)


@ways("ipip-worker", "gue-worker")
def test_datagrams_in_one_call(world: World, peer: Any) -> None:
    """Datagrams that reach the balancer as one packet (UDP_SEGMENT) are split before the queue."""
    world.balancer()
    for family in FAMILIES:
        result = peer(world.net.client, "segments", VIP[family], 5353, 10, 600)
        assert result == {"sent": 10, "echoed": 10}


@ways("ipip-bpf")
def test_the_last_hop_is_seen(world: World, peer: Any) -> None:
    """A datagram that may go no further than the balancer is answered."""
    world.balancer()
    client = world.net.client
    for family in FAMILIES:
        assert peer(client, "udp", VIP[family], 5353, 10, 1) == {"error": "EHOSTUNREACH"}
        assert peer(client, "udp", VIP[family], 5353, 10, 2)["whole"]


@ways("ipip-worker", "ipip-bpf")
def test_workers_that_are_killed(world: World, tmp_path: Path) -> None:
    """A connection goes on with the next workers, which have the flows from the journal."""
    running = world.balancer(apart=True, trouble=True)
    peers = [Rounds(world.net, family, tmp_path / str(family), port=BULK) for family in FAMILIES]
    for each in peers:
        each.await_more(running)
    killed = workers(running)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    await_log(running, 'event="worker ready"', 2 * len(killed))
    for each in peers:
        each.await_more(running)
        each.end()
