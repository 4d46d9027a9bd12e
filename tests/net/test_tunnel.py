"""``forward: tunnel`` over real servers and clients: a router is between balancer and backends.

The backends are set up by `paraglider backend-setup`; this kernel may have no device for tunnels.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from carrying import both
from directing import FAMILIES, Rounds, answers_by, assert_shares
from offloading import await_log
from processes import workers
from services import http_service, url

from paraglider.core.encapsulation import OVERHEAD
from paraglider.lab import direct
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

BIG = 20_000_000
NETWORK = {"public": {"interface": "eth0"}}
Tunnelled = Callable[..., tuple[Topology, LabBalancer]]


def ways(name: str, *found: tuple[Any, ...]) -> pytest.MarkDecorator:
    """A test with these encapsulations and carriers, and parameters called ``name``, if any."""
    names = ["kind", "carrier", *([name] if name else [])]
    return pytest.mark.parametrize(names, found, indirect=["carrier"])


def services(kind: str, carrier: str) -> list[dict[str, Any]]:
    """HTTP and UDP echo of either family."""
    common = {"forward": "tunnel", "encapsulation": {"type": kind}, "carrier": carrier or "auto"}
    echo = {"protocol": "udp", "ports": 5353}
    return [
        service
        for family in FAMILIES
        for service in (
            http_service(family, **common),
            http_service(family, **common, **echo, name=f"echo{family}"),
        )
    ]


@pytest.fixture
def tunnelled(topology: Any, carrier: str, config: Any, balancer: Any) -> Iterator[Tunnelled]:
    """A factory of networks with a router before the backends, a balancer that runs, and backends
    that are set up; their set-up is undone, and must leave nothing.
    """
    made: list[tuple[Topology, LabBalancer]] = []

    def make(
        kind: str, *, workers: int = 1, trouble: bool = False, **plan: Any
    ) -> tuple[Topology, LabBalancer]:
        net = topology(direct=True, far=True, **plan)
        wanted = services(kind, carrier)
        running = balancer(net, config(*wanted, workers=workers, network=NETWORK), trouble=trouble)
        running.hold_pins()
        made.append((net, running))
        direct.set_up(net.backends, running.config, [service["name"] for service in wanted])
        return net, running

    yield make
    for net, running in made:
        for backend in net.backends:
            direct.undo(backend, running.config)
            left = backend.run(["ip", "-o", "address", "show", "dev", "lo"]).stdout
            assert not any(vip in left for vip in VIP.values())


@ways("workers", ("ipip", "worker", 1), ("gue", "worker", 2), ("ipip", "bpf", 2), ("gue", "bpf", 1))
def test_every_backend_its_share(
    tunnelled: Tunnelled, serve: Any, ask: Any, kind: str, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some. The backends
    see the client's address, and no answer passes the balancer.
    """
    net, _ = tunnelled(kind, workers=workers)
    serve(net)
    assert_shares(net, ask, workers)
    for family in FAMILIES:
        before = answers_by(net)
        seen = net.client.run(["curl", "-sS", url(family, "/from")]).stdout.strip()
        assert seen == net.client_address(family)
        net.client.run(["curl", "-sS", "-o", "/dev/null", url(family, "/big")])
        assert answers_by(net) - before < 10_000


@ways(
    "narrow",
    ("ipip", "worker", 1500),
    ("gue", "worker", 1400),
    ("ipip", "bpf", 1400),
    ("gue", "bpf", 1500),
)
def test_long_transfers(
    tunnelled: Tunnelled, serve_peer: Any, peer: Any, kind: str, narrow: int
) -> None:
    """Twenty megabytes arrive complete in each direction, also where a router far from the client
    has a narrow link behind it. The client learns what fits inside the tunnel.
    """
    net, _ = tunnelled(kind, backend_mtu=narrow)
    serve_peer(net, 80)
    for family in FAMILIES:
        for direction in ("down", "up"):
            result = peer(net.client, direction, VIP[family], 80, BIG)
            assert result["sent"] == result["arrived"]
        room = narrow - OVERHEAD[family][kind == "gue"]
        shown = net.client.run(["ip", "route", "get", VIP[family]]).stdout
        assert re.search(rf"\bmtu {room}\b", shown), shown
    table = net.balancer.run(["conntrack", "-L"], check=False).stdout
    assert VIP[4] not in table


@ways("", ("ipip", "worker"), ("gue", "bpf"))
def test_long_datagrams(tunnelled: Tunnelled, serve: Any, peer: Any, kind: str) -> None:
    """A datagram that the client has fragmented arrives whole, and so does one that fits the
    client's link and not the tunnel; the IPv6 client is told besides.
    """
    net, _ = tunnelled(kind)
    serve(net)
    for family in FAMILIES:
        peer(net.client, "udp", VIP[family], 5353, 1452)  # the IPv6 client is told
        for size in (1400, 1452, 3000, 20000):
            result = peer(net.client, "udp", VIP[family], 5353, size)
            assert result["whole"], (family, size, result)


@ways("", ("ipip", "worker"), ("gue", "worker"))
def test_datagrams_in_one_call(tunnelled: Tunnelled, serve: Any, peer: Any, kind: str) -> None:
    """Datagrams that reach the balancer as one packet (UDP_SEGMENT) are split before the queue."""
    net, _ = tunnelled(kind)
    serve(net)
    for family in FAMILIES:
        result = peer(net.client, "segments", VIP[family], 5353, 10, 600)
        assert result == {"sent": 10, "echoed": 10}


def test_the_last_hop_is_seen(tunnelled: Tunnelled, serve: Any, peer: Any) -> None:
    """A datagram that may go no further than the balancer is answered."""
    net, _ = tunnelled("ipip")
    serve(net)
    for family in FAMILIES:
        assert peer(net.client, "udp", VIP[family], 5353, 10, 1) == {"error": "EHOSTUNREACH"}
        assert peer(net.client, "udp", VIP[family], 5353, 10, 2)["whole"]


@both
def test_a_worker_that_is_killed(tunnelled: Tunnelled, serve_peer: Any, tmp_path: Path) -> None:
    """A connection goes on with the next worker, which has the flows from the journal."""
    net, running = tunnelled("ipip", trouble=True)
    serve_peer(net, 80)
    peers = [Rounds(net, family, tmp_path / str(family)) for family in FAMILIES]
    for each in peers:
        each.await_more(running)
    (pid,) = workers(running)
    os.kill(pid, signal.SIGKILL)
    await_log(running, 'event="worker ready"', 2)
    for each in peers:
        each.await_more(running)
        each.end()
