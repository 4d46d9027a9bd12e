"""ICMP errors and long packets end to end: path MTU, fragments, unreachable backends.

Two workers have all flows, so that an error must reach the worker of its flow.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from carrying import both
from clients import pinged

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

SIZE = 1_000_000
SMALL = 1400  # bytes of the narrow link
FAMILIES = (4, 6)


def forget_paths(*namespaces: Namespace) -> None:
    """Delete the learned path MTUs of every host."""
    for namespace in namespaces:
        namespace.ip("route flush cache")
        namespace.run(["ip", "-6", "route", "flush", "cache"])


def learnt_mtu(namespace: Namespace, address: str) -> int | None:
    """The path MTU that a host has learnt for the way to ``address``."""
    found = re.search(r"\bmtu (\d+)", namespace.run(["ip", "route", "get", address]).stdout)
    return int(found[1]) if found else None


def errors_without_limit(net: Topology) -> None:
    """Disable the rate limits of ICMP errors on every host."""
    for namespace in net.namespaces:
        namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")


@both
def test_an_upload_into_a_narrow_private_link(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The balancer sends Packet Too Big from the VIP; the client reacts."""
    net = topology(private_mtu=SMALL)
    serve_peer(net, 9000)
    errors_without_limit(net)
    balancer(net, config(*(service(family, ports=9000) for family in FAMILIES), workers=2))
    for family in FAMILIES:
        for _ in range(6):
            forget_paths(net.client)
            result = peer(net.client, "up", VIP[family], 9000, SIZE)
            assert result["arrived"] == result["sent"]
            assert learnt_mtu(net.client, VIP[family]) == SMALL


@both
def test_a_download_through_a_narrow_router(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """A router beyond the balancer sends Packet Too Big to the VIP; the flow's backend gets it, and
    sends shorter packets.
    """
    net = topology(router=True)
    assert net.router is not None
    net.router.ip(f"link set eth1 mtu {SMALL}")
    serve_peer(net, 9000)
    errors_without_limit(net)
    balancer(net, config(*(service(family, ports=9000) for family in FAMILIES), workers=2))
    for family in FAMILIES:
        client = net.client_address(family)
        for _ in range(6):
            forget_paths(*net.backends)
            result = peer(net.client, "down", VIP[family], 9000, SIZE)
            assert result["arrived"] == result["sent"]
            mtus = [learnt_mtu(backend, client) for backend in net.backends]
            assert mtus.count(SMALL) == 1


def test_a_download_into_a_narrow_public_link(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """If the balancer's public link has the small MTU, it sends the error to the backend itself."""
    net = topology(router=True)
    net.balancer.ip(f"link set eth0 mtu {SMALL}")
    serve_peer(net, 9000)
    errors_without_limit(net)
    balancer(net, config(*(service(family, ports=9000) for family in FAMILIES), workers=2))
    for family in FAMILIES:
        for _ in range(4):
            forget_paths(*net.backends)
            result = peer(net.client, "down", VIP[family], 9000, SIZE)
            assert result["arrived"] == result["sent"]
            mtus = [learnt_mtu(backend, net.client_address(family)) for backend in net.backends]
            assert mtus.count(SMALL) == 1


@both
def test_a_fragmented_datagram(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """8,000 bytes of UDP, six fragments each way, arrive whole both ways; so do 60,000."""
    net = topology()
    serve(net, http=())
    services = [service(family, protocol="udp", ports=5353) for family in FAMILIES]
    balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        for size in (8000, 8000, 8000, 8000, 60_000):
            result = peer(net.client, "udp", VIP[family], 5353, size)
            assert result["whole"] is True, result
            assert result["answer"] in {"backend1", "backend2", "backend3"}


def test_a_long_ping(topology: Any, serve: Any, config: Any, service: Any, balancer: Any) -> None:
    """A fragmented echo request of an `any` service comes back whole."""
    net = topology()
    serve(net, http=())
    balancer(net, config(*(service(f, protocol="any") for f in FAMILIES), workers=2))
    for family in FAMILIES:
        for _ in range(3):
            pinged(net.client, VIP[family], "-c", "2", "-i", "0.01", "-s", "8000")


def test_an_unreachable_port(
    topology: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The error of a backend without a server reaches the client's socket: refused."""
    net = topology()
    errors_without_limit(net)
    services = [service(family, protocol="udp", ports=5353) for family in FAMILIES]
    services += [
        service(family, name=f"tcp{family}", ports=80, affinity="client") for family in FAMILIES
    ]
    balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        for _ in range(6):
            refused = {"error": "ECONNREFUSED"}
            assert peer(net.client, "udp", VIP[family], 5353, 100) == refused
            assert peer(net.client, "connect", VIP[family], 80) == refused


@both
def test_an_unreachable_mapped_port(
    topology: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The error of a mapped port reaches the client with the VIP's port."""
    net = topology()
    errors_without_limit(net)
    services = []
    for family in FAMILIES:
        mapped = service(family, protocol="udp", ports=53)
        mapped["backends"] = [{"address": a, "port": 9999} for a in mapped["backends"]]
        services.append(mapped)
    balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        for _ in range(6):
            result = peer(net.client, "udp", VIP[family], 53, 100)
            assert result == {"error": "ECONNREFUSED"}


@both
def test_a_hop_too_many(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """A datagram whose hops end at the balancer is answered by Time Exceeded, as traceroute
    needs it; with one hop more it arrives.
    """
    net = topology()
    serve(net, http=())
    errors_without_limit(net)
    services = [service(family, protocol="udp", ports=5353) for family in FAMILIES]
    balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        for _ in range(4):
            result = peer(net.client, "udp", VIP[family], 5353, 100, 1)
            assert result == {"error": "EHOSTUNREACH"}
            assert peer(net.client, "udp", VIP[family], 5353, 100, 2)["whole"] is True


def test_a_backend_that_is_gone(
    topology: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The balancer cannot reach the backend and sends an error; the client's connection fails at
    once.
    """
    net = topology()
    errors_without_limit(net)
    balancer(net, config(*(service(family, ports=80) for family in FAMILIES), workers=2))
    net.balancer.sysctl(
        "net.ipv4.neigh.eth1.mcast_solicit=1",
        "net.ipv6.neigh.eth1.mcast_solicit=1",
        "net.ipv4.neigh.eth1.retrans_time_ms=100",
        "net.ipv6.neigh.eth1.retrans_time_ms=100",
    )
    for backend in net.backends:
        backend.ip("link set eth0 down")
    net.balancer.ip("neighbour flush dev eth1")
    net.balancer.run(["ip", "-6", "neighbour", "flush", "dev", "eth1"])
    for family in FAMILIES:
        assert peer(net.client, "connect", VIP[family], 80) == {"error": "EHOSTUNREACH"}
