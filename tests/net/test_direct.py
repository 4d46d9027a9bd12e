"""``return: direct`` under ``forward: nat``: what backend-setup makes has answers leave as the VIP.

The backends have a leg in the clients' network, by which they answer past the balancer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from carrying import both
from counting import received
from services import http_service
from sharing import Shared

from paraglider.lab import direct as lab
from paraglider.lab.balancer import start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Plan, Topology, backend_address, direct_address

pytestmark = pytest.mark.root

EVEN = {"backend1": 4, "backend2": 4, "backend3": 4}
MEGABYTES = 3 * 1024 * 1024
FIREWALL = """\
table inet theirs {
    chain input { type filter hook input priority 0; ct state invalid counter drop; }
    chain output { type filter hook output priority 0; ct state invalid counter drop; }
    chain post { type nat hook postrouting priority 100; ip protocol icmp masquerade; }
}
"""


def curl(namespace: Namespace, address: str, port: int = 80, *options: str) -> str:
    """The response of an HTTP server."""
    host = f"[{address}]" if ":" in address else address
    command = ["curl", "-sS", "--fail", "--max-time", "60", *options, f"http://{host}:{port}/"]
    return namespace.run(command).stdout.strip()


def direct(service: Any, family: int, name: str, **changes: Any) -> dict[str, Any]:
    """A service whose backends answer the client."""
    made: dict[str, Any] = service(family, name=f"{name}{family}", **changes)
    return made | {"return": "direct"}


@pytest.fixture
def answering(config: Any, service: Any, balancer: Any, backend_setup: Any) -> Any:
    """A function that puts services to work, with every backend set up for them.

    It is given (name, changes of the service) and makes one of each family.
    """

    def start(net: Topology, *wanted: tuple[str, dict[str, Any]]) -> None:
        services = [direct(service, f, name, **c) for f in (4, 6) for name, c in wanted]
        running = balancer(net, config(*services, workers=2))
        for backend in net.backends:
            backend_setup(backend, running.config, *(made["name"] for made in services), "--apply")

    return start


def services(carrier: str) -> list[dict[str, Any]]:
    """All of the shared balancer, of both families: HTTP, transfers, a port without a listener, UDP
    echo, and ports of the VIP that are others of the backends, two of one host.
    """
    made = []
    for family in (4, 6):
        ends = ((1, 8080), (1, 8081), (2, 8080), (3, 8080))
        http = [{"address": backend_address(family, n), "port": port} for n, port in ends]
        echo = [{"address": backend_address(family, n), "port": 9999} for n in (1, 2, 3)]
        udp = {"protocol": "udp"}
        for name, changes in (
            ("web", {"ports": 80}),
            ("bulk", {"ports": 9000}),
            ("closed", {"ports": 81}),
            ("echo", {**udp, "ports": 5353}),
            ("mapped", {"ports": 8000, "backends": http}),
            ("names", {**udp, "ports": 53, "backends": echo}),
        ):
            common = {"return": "direct", "carrier": carrier}
            made.append(http_service(family, name=f"{name}{family}", **common, **changes))
    return made


class World(NamedTuple):
    """The network, and the carrier of the balancer in it."""

    net: Topology
    carrier: str


@pytest.fixture(scope="module", params=["worker", "bpf"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, big_file: Path
) -> Iterator[World]:
    """One for all tests with a carrier; where BPF carries, the backends have a stateful firewall.
    The operator's command has set up the backends.
    """
    directory = tmp_path_factory.mktemp("direct")
    with Topology(Plan(direct=True)) as net, Shared(net, directory, big_file) as shared:
        shared.serve(http=(80, 8080, 8081), udp=(5353, 9999))
        shared.serve_peer(9000)
        for backend in net.backends if request.param == "bpf" else ():
            backend.run(["nft", "-f", "-"], text=FIREWALL)
        wanted = services(request.param)
        running = shared.balancer(shared.config(*wanted))
        lab.set_up(net.backends, running.config, [made["name"] for made in wanted])
        yield World(net, request.param)
        for backend in net.backends:
            lab.undo(backend, running.config)


def test_answers_get_past_the_balancer(world: World, ask: Any, peer: Any) -> None:
    """TCP and UDP of both families, on backends with and without a stateful firewall: the client
    gets its answers from the VIP, and none of them through the balancer.
    """
    net = world.net
    before = received(net.balancer, "eth1")
    for family in (4, 6):
        assert ask(net, "tcp", VIP[family], 80, 12).keys() == EVEN.keys()
        assert peer(net.client, "ports", VIP[family], 5353, 12).keys() == EVEN.keys()
        # In pieces both ways.
        assert peer(net.client, "udp", VIP[family], 5353, 8000)["whole"]
    # 24 connections had at least four answers each; eth1 receives only ARP and ND.
    assert received(net.balancer, "eth1") - before < 48
    dropped = "counter packets 0" if world.carrier == "bpf" else ""
    for backend in net.backends:
        rules = backend.run(["nft", "list", "ruleset"]).stdout
        assert rules.count("counter packets") == rules.count("counter packets 0")
        assert dropped in rules


def test_long_transfers(world: World, peer: Any) -> None:
    """Megabytes arrive whole, up and down, with the segments as long as the kernel makes them."""
    net = world.net
    before = received(net.balancer, "eth1")
    for family in (4, 6):
        for verb in ("up", "down"):
            result = peer(net.client, verb, VIP[family], 9000, MEGABYTES)
            assert result["sent"] == result["arrived"]
    assert received(net.balancer, "eth1") - before < 100


def test_mapped_ports(world: World, ask: Any, peer: Any) -> None:
    """The client sees the VIP's port for any port of a backend, also for two ports of one host."""
    for family in (4, 6):
        answers = ask(world.net, "tcp", VIP[family], 8000, 12)
        assert answers == {"backend1": 6, "backend2": 3, "backend3": 3}
        assert peer(world.net.client, "ports", VIP[family], 53, 12) == EVEN


def test_connections_to_the_backend_itself(world: World, ask: Any) -> None:
    """The balancer's checks, the backends among themselves and clients of the backend's other
    address are answered by the address that they called, beside the service.
    """
    net = world.net
    for family in (4, 6):
        for caller in (net.balancer, net.backends[1], net.backends[0]):
            assert curl(caller, backend_address(family, 1)) == "backend1"
        assert curl(net.client, direct_address(family, 1)) == "backend1"
        assert set(ask(net, "tcp", VIP[family], 80, 12)) == set(EVEN)


def test_a_port_without_a_listener(world: World, peer: Any) -> None:
    """The backend's refusal comes from the VIP, so the client gets it at once."""
    for family in (4, 6):
        result = peer(world.net.client, "connect", VIP[family], 81)
        assert result == {"error": "ECONNREFUSED"}


@both
def test_any_beside_the_hosts_own_connections(
    topology: Any, serve: Any, answering: Any, ask: Any, peer: Any
) -> None:
    """All ports and ping belong to the VIP; connections that the backend opens keep its address."""
    net = topology(direct=True)
    serve(net, http=(80, 50000))
    answering(net, ("all", {"protocol": "any"}))
    for family in (4, 6):
        for port in (80, 50000):
            assert set(ask(net, "tcp", VIP[family], port, 6)) == set(EVEN)
        assert set(peer(net.client, "ports", VIP[family], 5353, 6)) == set(EVEN)
        assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
    start_backend(net.client, "client", http=(8000,))
    first = net.backends[0]
    for family in (4, 6):
        own = backend_address(family, 1)
        net.client.ip(f"route add {own} via {direct_address(family, 1)}")
        assert curl(first, net.client_address(family), 8000, "--interface", own) == "client"


def test_a_narrow_path_behind_a_router(
    topology: Any, serve_peer: Any, answering: Any, peer: Any
) -> None:
    """A router's Packet Too Big goes to the VIP, so to the balancer: it reaches the backend that
    owns the flow, whose segments then fit.
    """
    net = topology(direct=True, router=True, client_mtu=1300)
    serve_peer(net, 9000)
    answering(net, ("bulk", {"ports": 9000}))
    for family in (4, 6):
        result = peer(net.client, "down", VIP[family], 9000, MEGABYTES)
        assert result["sent"] == result["arrived"]
