"""``forward: offload`` over real servers and clients, both families: what arrives, and at whom.

The tests share a network, and most of them a balancer: each has services on a VIP of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from itertools import product
from typing import Any

import pytest
from counting import echo_requests
from evenly import EVEN, assert_even
from failing import await_counted, control, rows
from offloading import FAMILIES, Held, await_log, queued, seen_by_python, service
from processes import children
from services import url
from serving import start_dnsmasq
from sharing import Shared, vip
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import (
    BALANCER,
    CLIENT,
    GATEWAY,
    PUBLIC_PREFIX,
    VIP,
    Topology,
    backend_address,
)

pytestmark = pytest.mark.root

NAMES = set(EVEN)
#: the VIPs by their numbers; from RANGE on they have services of all ports
MAPPED, MASKED, HAIRPIN, RANGE, ANY, EXEMPT = range(2, 8)


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing()
    made.serve(http=(80, 8000, 8080))
    return made


@pytest.fixture
def net(shared: Shared) -> Topology:
    """The network, with a balancer whose services have ports."""
    services = []
    for family in FAMILIES:
        one, two = (backend_address(family, n) for n in (1, 2))
        masked = [{"address": backend_address(family, n), "port": 80} for n in (1, 2, 3)]
        ports = [{"address": one, "port": 8000}, {"address": two, "port": 8000, "weight": 2}]
        services += [
            service(family),
            service(family, name=f"echo{family}", protocol="udp", ports=5353),
            service(family, name=f"nat{family}", ports=8080, forward="nat"),
            on(family, MAPPED, "mapped", ports=81, strategy="wrr", backends=ports),
            on(family, MASKED, "masked", ports=80, snat=GATEWAY[family], backends=masked),
            on(family, HAIRPIN, "hairpin", ports=80, backends=[one, two]),
        ]
    shared.balancer(shared.config(*services))
    return shared.net


@pytest.fixture
def all_ports(shared: Shared) -> Topology:
    """The network, with a balancer whose services have all ports."""
    services = []
    for family in FAMILIES:
        one, two = ([backend_address(family, n)] for n in (1, 2))
        services += [
            on(family, RANGE, "some", ports=["8000-8010"], backends=one),
            on(family, RANGE, "rest", backends=two),
            on(family, ANY, "any", protocol="any"),
            on(family, EXEMPT, "exempt", protocol="any"),
        ]
    exempt = [f"{vip(4, EXEMPT)}:53/udp", f"[{vip(6, EXEMPT)}]:53/udp"]
    text = shared.config(*services)
    shared.balancer(text.replace("network:\n", f"network:\n  exempt: {exempt}\n"))
    return shared.net


def on(family: int, number: int, name: str, **changes: Any) -> dict[str, Any]:
    """A service on a VIP, of all ports unless it has some."""
    made = service(family, name=f"{name}{family}", **changes)
    if "ports" not in changes:
        del made["ports"]
    return made | {"vip": f"{vip(family, number)}/{PUBLIC_PREFIX[family]}"}


def two_workers(shared: Shared) -> LabBalancer:
    """A balancer with two workers."""
    services = []
    for family in FAMILIES:
        services += [
            service(family),
            service(family, name=f"echo{family}", protocol="udp", ports=5353),
            on(family, MAPPED, "kept", ports=80, affinity="client"),
        ]
    return shared.balancer(shared.config(*services, workers=2))


def test_every_backend_its_share(net: Topology, ask: Any) -> None:
    """rr over TCP and UDP: ten of thirty each."""
    for family, (protocol, port) in product(FAMILIES, (("tcp", 80), ("udp", 5353))):
        assert_even(ask, net, protocol, VIP[family], port)


def test_python_sees_first_packets_alone(net: Topology) -> None:
    """Eight megabytes and a hundred requests over one connection cost one packet in the queue."""
    for family in FAMILIES:
        urls = [url(family, "/big"), *[url(family)] * 100]
        with queued(net, 1):
            done = net.client.run(
                ["curl", "-sS", "-o", "/dev/null", *urls, "-w", "%{num_connects}\n"]
            )
        assert done.stderr == ""


def test_ports_are_mapped(net: Topology, ask: Any) -> None:
    """The backends answer on their own port, and the client sees the VIP's."""
    for family in FAMILIES:
        answers = ask(net, "tcp", vip(family, MAPPED), 81, 30)
        assert answers == {"backend1": 10, "backend2": 20}


def test_backends_see_the_client_or_the_balancer(net: Topology) -> None:
    """Without ``snat`` the client's address arrives, with it the configured one."""
    for family in FAMILIES:
        for number, address in ((1, CLIENT[family]), (MASKED, GATEWAY[family])):
            host = f"[{vip(family, number)}]" if family == 6 else vip(family, number)
            answer = net.client.run(["curl", "-sS", f"http://{host}/from"]).stdout
            assert answer.strip() == address


def test_hairpin(net: Topology) -> None:
    """A backend, which may get itself, and a client in the backends' own network call the VIP."""
    for family, caller in product(FAMILIES, (net.backends[0], net.backends[2])):
        program = [sys.executable, "-m", "paraglider.lab.client", "tcp"]
        command = [*program, vip(family, HAIRPIN), "80", "10", "20"]
        lines = caller.run(command, timeout=TIMEOUT).stdout.splitlines()
        answers = Counter(json.loads(line).get("answer") for line in lines)
        assert answers == {"backend1": 5, "backend2": 5}


def test_beside_nat_on_one_vip(net: Topology, ask: Any) -> None:
    """One service is offloaded, the other rewritten, by the same worker, on different ports."""
    for family in FAMILIES:
        assert_even(ask, net, "tcp", VIP[family], 80)
        assert_even(ask, net, "tcp", VIP[family], 8080)
        assert_even(ask, net, "udp", VIP[family], 5353)
        command = ["curl", "-sS", "-o", "/dev/null", url(family, "/big")]
        with queued(net, 1):
            assert net.client.run(command).stderr == ""


def test_through_a_firewall_that_drops(net: Topology, ask: Any) -> None:
    """A policy of DROP on FORWARD applies to everything except balanced
    packets of both directions.
    """
    direct = [sys.executable, "-m", "paraglider.lab.client", "tcp"]
    programs = ("iptables", "ip6tables")
    for program in programs:
        net.balancer.run([program, "-P", "FORWARD", "DROP"])
    try:
        for family in FAMILIES:
            assert ask(net, "tcp", VIP[family], 80, 6).total() == 6
            backend = backend_address(family, 1)
            net.client.ip(f"route add {backend} via {BALANCER[family]}")
            assert "timed out" in net.client.run([*direct, backend, "80", "1", "1"]).stdout
            net.client.ip(f"route del {backend} via {BALANCER[family]}")
    finally:
        for program in programs:
            net.balancer.run([program, "-P", "FORWARD", "ACCEPT"])


def test_a_range_keeps_the_port(all_ports: Topology, ask: Any) -> None:
    """A service with several ports sends each to the same one; one with all ports has the rest."""
    for family in FAMILIES:
        assert ask(all_ports, "tcp", vip(family, RANGE), 8000, 5) == {"backend1": 5}
        assert ask(all_ports, "tcp", vip(family, RANGE), 8080, 5) == {"backend2": 5}


def test_any_is_tcp_udp_and_ping(all_ports: Topology, ask: Any) -> None:
    """``protocol: any`` has all three, and only the backends answer pings."""
    net = all_ports
    for family in FAMILIES:
        assert ask(net, "tcp", vip(family, ANY), 80, 3).total() == 3
        assert ask(net, "udp", vip(family, ANY), 5353, 3).total() == 3
        before, requests = seen_by_python(net), sum(echo_requests(net, family))
        assert ask(net, "ping", vip(family, ANY), 0, 6) == {"": 6}
        requests = sum(echo_requests(net, family)) - requests
        assert requests >= 6  # and those that were sent again
        assert seen_by_python(net) - before == requests


def test_exempt_endpoints_are_left_alone(all_ports: Topology, ask: Any, peer: Any) -> None:
    """An exempt endpoint on the VIP is answered by the balancer itself, the rest is balanced."""
    net = all_ports
    start_dnsmasq(net.balancer, "balancer")
    for family in FAMILIES:
        address = vip(family, EXEMPT)
        dig = ["dig", f"@{address}", "who.test", "TXT", "+short", "+tries=1", "+time=30"]
        for _ in range(4):
            assert net.client.run([*dig, "+notcp"]).stdout.strip() == '"balancer"'
        assert set(peer(net.client, "ports", address, 5353, 6)) == NAMES
        assert set(ask(net, "tcp", address, 80, 6)) == NAMES


def test_two_workers_share_the_work(shared: Shared, ask: Any) -> None:
    """Over two workers each backend has some of the flows of TCP and UDP."""
    two_workers(shared)
    for family, (protocol, port) in product(FAMILIES, (("tcp", 80), ("udp", 5353))):
        assert set(ask(shared.net, protocol, VIP[family], port, 30)) == NAMES


def test_a_client_keeps_its_backend(shared: Shared, ask: Any) -> None:
    """With ``affinity: client`` over two workers all of a client's flows go to one backend, also
    without a daemon.
    """
    running = two_workers(shared)
    for family in FAMILIES:
        assert len(ask(shared.net, "tcp", vip(family, MAPPED), 80, 20)) == 1
    assert running.stop() == 0
    for family in FAMILIES:
        assert len(ask(shared.net, "tcp", vip(family, MAPPED), 80, 20)) == 1


def test_what_the_kernel_carries_is_shown(shared: Shared, ask: Any) -> None:
    """Packets and bytes in each direction per backend, at once; live flows soon, without closed
    ones; counts continue when the table is recreated.
    """
    text = shared.config(*map(service, FAMILIES))
    running = shared.balancer(text, apart=True, trouble=True)
    for family in FAMILIES:
        is_shown(shared.net, running, family, ask)


def is_shown(net: Topology, running: LabBalancer, family: int, ask: Any) -> None:
    """What the kernel carries of ``family``."""

    def told(what: str) -> list[int]:
        """A number of each backend."""
        return [row[what] or 0 for row in control(running).get("backends", service=f"web{family}")]

    assert told("bytes_out") == [0, 0, 0]
    net.client.run(["curl", "-sS", "-o", "/dev/null", url(family, "/big")])
    wait_until(lambda: max(told("bytes_out")) > 8 << 20, running.log)
    many = told("bytes_out")
    at = many.index(max(many))
    assert sum(many) == many[at]
    assert 0 < told("bytes_in")[at] < 1 << 20
    assert told("packets_in")[at] > 5
    held = Held(net, VIP[family])
    answer = held.ask()
    alive = [int(answer == f"backend{number}") for number in (1, 2, 3)]
    assert sum(alive) == 1
    wait_until(lambda: told("flows") == alive, running.log)
    table = f"table {'ip' if family == 4 else 'ip6'} paraglider"
    net.balancer.run(["nft", f"delete {table}"])
    await_log(running, f'missing on the host, restored" role="host helper" object="{table}"')
    assert_even(ask, net, "tcp", VIP[family], 80)
    wait_until(lambda: told("bytes_out")[at] > many[at], running.log)

    def total() -> int:
        """The service's number."""
        found = control(running).get("services")
        return sum(row["bytes_out"] for row in found if row["service"] == f"web{family}")

    wait_until(lambda: total() == sum(told("bytes_out")), running.log)
    held.end()


def test_weighted_counts_live_flows(shared: Shared) -> None:
    """Connections that stay open count, those that are closed do not; a conntrack counter that dies
    is replaced, and the next one counts the existing connections.
    """
    services = []
    for family in FAMILIES:
        heavy = {"address": backend_address(family, 2), "weight": 3}
        backends = [backend_address(family, 1), heavy]
        services.append(service(family, strategy="weighted", backends=backends))
    running = shared.balancer(shared.config(*services), apart=True, trouble=True)
    assert "paraglider/conn" in children(running)
    held = {family: [Held(shared.net, VIP[family]) for _ in range(12)] for family in FAMILIES}
    for family, opened in held.items():
        assert Counter(one.ask() for one in opened) == {"backend1": 3, "backend2": 9}
        await_live(running, family, 12)  # else the 9 below may be seen on the way up to these
        # The three of the first backend end; the next three fill its place.
        for one in [one for one in opened if one.ask() == "backend1"]:
            opened.remove(one)
            one.end()
        await_live(running, family, 9)
        more = [Held(shared.net, VIP[family]) for _ in range(4)]
        opened.extend(more)
        assert Counter(one.ask() for one in more) == {"backend1": 3, "backend2": 1}
    os.kill(children(running)["paraglider/conn"], signal.SIGKILL)
    await_log(running, 'event="conntrack counter ready"', 2)
    for family, opened in held.items():
        await_live(running, family, 13)
        more = [Held(shared.net, VIP[family]) for _ in range(4)]
        assert Counter(one.ask() for one in more) == {"backend1": 1, "backend2": 3}
        for one in opened + more:
            one.end()
    assert "no worker alive" not in running.log()


def await_live(running: LabBalancer, family: int, flows: int) -> None:
    """Wait until the conntrack counter has counted ``flows`` live connections, and the workers have
    read them.
    """

    def live() -> int:
        return sum(row["flows"] or 0 for row in rows(running, family).values())

    wait_until(lambda: live() == flows, running.log)
    await_counted(running)  # it reads the counts in the tick in which it writes its own, or earlier


def test_path_mtu_is_found(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """Errors of a router with a smaller MTU to the VIP reach the backend, also if the VIP has a nat
    service, whose flows are not in conntrack.
    """
    net = topology(router=True)
    assert net.router is not None
    net.router.ip("link set eth1 mtu 1400")
    serve_peer(net, 9000)
    for namespace in net.namespaces:
        namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    services = []
    for family in FAMILIES:
        one, *others = (backend_address(family, number) for number in (1, 2, 3))
        nat = {"ports": 9001, "forward": "nat", "backends": [{"address": one, "port": 9000}]}
        services += [
            on(family, 2, "alone", ports=9000, backends=others),
            service(family, ports=9000, backends=others),
            service(family, name=f"nat{family}", **nat),
        ]
    balancer(net, config(*services, workers=2))
    for family, (address, ports) in product(FAMILIES, ((2, [9000]), (1, [9000, 9001]))):
        for backend in net.backends:
            backend.ip("route flush cache")
            backend.run(["ip", "-6", "route", "flush", "cache"])
        for port in ports:
            result = peer(net.client, "down", vip(family, address), port, 300_000)
            assert result["arrived"] == result["sent"]
        learnt = [
            "mtu 1400" in backend.run(["ip", "route", "get", net.client_address(family)]).stdout
            for backend in net.backends
        ]
        assert learnt.count(True) == len(ports)
