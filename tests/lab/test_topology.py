"""The topology connects client, balancer and backends in both families, and goes away whole."""

from __future__ import annotations

import subprocess

import pytest
from pinging import reachable

from paraglider.errors import PlatformError
from paraglider.lab import namespace, topology
from paraglider.lab.topology import GATEWAY, VIP, Plan, Topology, backend_address

PRESET = ("192.168.0.11/24", "2001:db8::11/64")


def learnt(source: namespace.Namespace, address: str) -> str:
    """The output of a ping that is too long for the way to ``address``; one of four names an MTU,
    see ``pinging.reachable``.
    """
    command = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1420", address]
    told = ""
    for _ in range(4):
        done = source.run(command, check=False)
        assert done.returncode != 0
        told = (done.stdout + done.stderr).lower()
        if "mtu" in told:
            break
    return told


def test_addresses_of_backends() -> None:
    """The tenth backend has a plain ten in IPv4 and a hexadecimal one in IPv6."""
    assert backend_address(4, 10) == "10.0.0.10"
    assert backend_address(6, 10) == "fd00:10::a"


def test_prefixes_differ() -> None:
    """Two topologies of one process do not share names, and both are the lab's."""
    first, second = topology.new_prefix(), topology.new_prefix()
    assert first != second
    assert namespace.NAME.fullmatch(f"{first}-client")
    assert namespace.NAME.fullmatch(f"{second}-client")


@pytest.mark.root
def test_both_sides_reach_the_balancer_at_once() -> None:
    """Client and backends reach their neighbours at once in both families."""
    with Topology(Plan(vips=PRESET, gateways=True)) as built:
        for family in (4, 6):
            assert reachable(built.client, VIP[family])
            for backend in built.backends:
                assert reachable(backend, GATEWAY[family])


@pytest.mark.root
@pytest.mark.parametrize("router", [False, True])
def test_direct_backends_reach_the_client_past_the_balancer(router: bool) -> None:
    """Each backend's route to the client uses its leg in the clients' network."""
    with Topology(Plan(direct=True, router=router)) as built:
        for family in (4, 6):
            for backend in built.backends:
                assert reachable(backend, built.client_address(family))
                way = backend.run(["ip", "route", "get", built.client_address(family)]).stdout
                assert "dev eth1" in way


@pytest.mark.root
def test_the_set_up_has_something_left_to_do() -> None:
    """By default there is neither VIP nor gateway, and the balancer forwards nothing."""
    with Topology(Plan(backends=1)) as built:
        addresses = built.balancer.run(["ip", "-o", "address"]).stdout
        assert VIP[4] not in addresses
        assert GATEWAY[4] not in addresses
        assert built.balancer.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "0\n"


@pytest.mark.root
def test_the_client_has_the_addresses_asked_for() -> None:
    """A plan with three clients gives the client three addresses a family."""
    with Topology(Plan(backends=1, clients=3)) as built:
        addresses = built.client.run(["ip", "-o", "address"]).stdout
        for family in (4, 6):
            assert all(built.client_address(family, n) in addresses for n in range(3))


@pytest.mark.root
def test_the_switches_do_not_filter() -> None:
    """Where br_netfilter is loaded, a bridge passes its frames to iptables by default."""
    names = [f"net.bridge.bridge-nf-call-{name}" for name in ("arptables", "iptables", "ip6tables")]
    with Topology(Plan(direct=True)) as built:
        for switch in (built.switch, built.front):
            assert "1" not in switch.run(["sysctl", "-e", "-n", *names]).stdout


@pytest.mark.root
def test_the_router_says_packet_too_big() -> None:
    """With a router and a small MTU behind it, a long packet to the client gets an error."""
    plan = Plan(backends=1, router=True, client_mtu=1400)
    with Topology(plan) as built:
        for family in (4, 6):
            client = built.client_address(family)
            assert reachable(built.balancer, client, "-s", "1000")
            assert "mtu" in learnt(built.balancer, client)


@pytest.mark.root
def test_a_router_before_the_backends() -> None:
    """With `far` the balancer is no neighbour of a backend, and reaches it over the router, which
    says what a link behind it takes.
    """
    with Topology(Plan(backends=1, direct=True, far=True, backend_mtu=1400)) as built:
        assert built.gate is not None
        for family in (4, 6):
            address = topology.backend_address(family, 1)
            assert reachable(built.balancer, address, "-s", "1000")
            route = built.balancer.run(["ip", "route", "get", address]).stdout
            assert f"via {topology.GATE[family]} " in route
            assert "mtu" in learnt(built.balancer, address)


@pytest.mark.root
def test_closing_ends_the_processes_and_removes_the_namespaces() -> None:
    """After close there is no namespace and no process of the topology's."""
    built = Topology(Plan(backends=1))
    process = built.client.popen(["sleep", "60"], stdout=subprocess.PIPE)
    built.close()
    built.close()
    assert process.returncode is not None
    assert not [name for name in namespace.names() if name.startswith(f"{built.prefix}-")]


@pytest.mark.root
def test_a_failure_half_way_leaves_nothing() -> None:
    """If the kernel refuses a part of the plan, everything built before is removed."""
    prefix = topology.new_prefix()
    with pytest.raises(PlatformError):
        Topology(Plan(vips=("not-an-address",)), prefix=prefix)
    assert not [name for name in namespace.names() if name.startswith(f"{prefix}-")]
