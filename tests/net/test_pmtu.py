"""ICMP errors and long packets end to end: path MTU, fragments, unreachable backends.

Two workers have all flows, so that an error must reach the worker of its flow. Tests share networks
and balancers: each has services on a VIP of its own.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from services import http_service
from sharing import Shared, vip
from unsent import pinged

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import PUBLIC_PREFIX, VIP, Topology, backend_address

pytestmark = pytest.mark.root

SIZE = 300_000
SMALL = 1400  # bytes of the narrow link
FAMILIES = (4, 6)
REFUSED = {"error": "ECONNREFUSED"}
#: the VIPs by their numbers
CARRIERS = {"worker": 1, "bpf": 2}
ANY, NOBODY = 3, 4
#: a transfer goes by the worker of its ports: so many meet both of two workers
TRANSFERS = 6

carriers = pytest.mark.parametrize("carrier", CARRIERS)


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


def service(family: int, number: int, name: str, carrier: str = "", **changes: Any) -> Any:
    """A service on a VIP."""
    chosen = {"carrier": carrier} if carrier else {}
    made = http_service(family, name=f"{name}{family}", **chosen, **changes)
    if made["protocol"] == "any":
        del made["ports"]
    return made | {"vip": f"{vip(family, number)}/{PUBLIC_PREFIX[family]}"}


def transferring(shared: Shared) -> None:
    """Have the network's balancer forward transfers, with either carrier."""
    services = [
        service(family, number, carrier, carrier, ports=9000)
        for family in FAMILIES
        for carrier, number in CARRIERS.items()
    ]
    shared.balancer(shared.config(*services, workers=2))


@pytest.fixture(scope="module")
def narrow(sharing: Any) -> Topology:
    """A network with a narrow private link, and transfers."""
    shared: Shared = sharing(private_mtu=SMALL)
    shared.serve_peer(9000)
    errors_without_limit(shared.net)
    transferring(shared)
    return shared.net


@pytest.fixture(scope="module")
def routed(sharing: Any) -> Topology:
    """A network with a router between client and balancer, and transfers."""
    shared: Shared = sharing(router=True)
    shared.serve_peer(9000)
    errors_without_limit(shared.net)
    transferring(shared)
    return shared.net


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """A network with servers of UDP, and nothing at other ports."""
    made: Shared = sharing()
    made.serve(http=())
    errors_without_limit(made.net)
    return made


@pytest.fixture
def net(shared: Shared) -> Topology:
    """The network, with a balancer."""
    services = []
    for family in FAMILIES:
        for carrier, number in CARRIERS.items():
            unserved = [{"address": backend_address(family, n), "port": 9999} for n in (1, 2, 3)]
            udp = {"carrier": carrier, "protocol": "udp"}
            services += [
                service(family, number, f"{carrier}-echo", ports=5353, **udp),
                service(family, number, f"{carrier}-mapped", ports=53, backends=unserved, **udp),
            ]
        services += [
            service(family, ANY, "any", protocol="any"),
            service(family, NOBODY, "udp", protocol="udp", ports=5354),
            service(family, NOBODY, "tcp", ports=80, affinity="client"),
        ]
    shared.balancer(shared.config(*services, workers=2))
    return shared.net


@carriers
def test_an_upload_into_a_narrow_private_link(narrow: Topology, peer: Any, carrier: str) -> None:
    """The balancer sends Packet Too Big from the VIP; the client reacts."""
    for family in FAMILIES:
        address = vip(family, CARRIERS[carrier])
        for _ in range(TRANSFERS):
            forget_paths(narrow.client)
            result = peer(narrow.client, "up", address, 9000, SIZE)
            assert result["arrived"] == result["sent"]
            assert learnt_mtu(narrow.client, address) == SMALL


@pytest.mark.parametrize(("carrier", "near"), [("worker", False), ("bpf", False), ("bpf", True)])
def test_a_download_through_a_narrow_link(
    routed: Topology, peer: Any, carrier: str, near: bool
) -> None:
    """A router beyond the balancer sends Packet Too Big to the VIP; the flow's backend gets it, and
    sends shorter packets. If it is the balancer's public link that has the small MTU, the balancer
    sends the error to the backend itself.
    """
    assert routed.router is not None
    host, link = (routed.balancer, "eth0") if near else (routed.router, "eth1")
    host.ip(f"link set {link} mtu {SMALL}")
    try:
        for family in FAMILIES:
            client = routed.client_address(family)
            for _ in range(TRANSFERS):
                forget_paths(*routed.backends)
                address = vip(family, CARRIERS[carrier])
                result = peer(routed.client, "down", address, 9000, SIZE)
                assert result["arrived"] == result["sent"]
                mtus = [learnt_mtu(backend, client) for backend in routed.backends]
                assert mtus.count(SMALL) == 1
    finally:
        host.ip(f"link set {link} mtu 1500")


@carriers
def test_a_fragmented_datagram(net: Topology, peer: Any, carrier: str) -> None:
    """8,000 bytes of UDP, six fragments each way, arrive whole both ways; so do 60,000."""
    for family in FAMILIES:
        for size in (8000, 8000, 8000, 8000, 60_000):
            result = peer(net.client, "udp", vip(family, CARRIERS[carrier]), 5353, size)
            assert result["whole"] is True, result
            assert result["answer"] in {"backend1", "backend2", "backend3"}


def test_a_long_ping(net: Topology) -> None:
    """A fragmented echo request of an `any` service comes back whole."""
    for family in FAMILIES:
        pinged(net.client, vip(family, ANY), "-s", "8000", count=6)


def test_an_unreachable_port(net: Topology, peer: Any) -> None:
    """The error of a backend without a server reaches the client's socket: refused."""
    for family in FAMILIES:
        address = vip(family, NOBODY)
        for _ in range(6):
            assert peer(net.client, "udp", address, 5354, 100) == REFUSED
            assert peer(net.client, "connect", address, 80) == REFUSED


@carriers
def test_an_unreachable_mapped_port(net: Topology, peer: Any, carrier: str) -> None:
    """The error of a mapped port reaches the client with the VIP's port."""
    for family in FAMILIES:
        for _ in range(6):
            address = vip(family, CARRIERS[carrier])
            assert peer(net.client, "udp", address, 53, 100) == REFUSED


@carriers
def test_a_hop_too_many(net: Topology, peer: Any, carrier: str) -> None:
    """A datagram whose hops end at the balancer is answered by Time Exceeded, as traceroute
    needs it; with one hop more it arrives.
    """
    for family in FAMILIES:
        address = vip(family, CARRIERS[carrier])
        for _ in range(4):
            result = peer(net.client, "udp", address, 5353, 100, 1)
            assert result == {"error": "EHOSTUNREACH"}
            assert peer(net.client, "udp", address, 5353, 100, 2)["whole"] is True


def test_a_backend_that_is_gone(topology: Any, config: Any, balancer: Any, peer: Any) -> None:
    """The balancer cannot reach the backend and sends an error; the client's connection fails at
    once.
    """
    net = topology()
    errors_without_limit(net)
    balancer(net, config(*map(http_service, FAMILIES), workers=2))
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
