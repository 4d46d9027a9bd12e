"""``forward: offload`` over real servers and clients, both families: what arrives, and at whom."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from itertools import product
from typing import Any

import pytest
from failing import control, rows
from offloading import EVEN, FAMILIES, Held, await_log, seen_by_python, service
from processes import children
from services import url
from waiting import wait_until

from paraglider.lab.topology import BALANCER, CLIENT, GATEWAY, VIP, backend_address

pytestmark = pytest.mark.root


@pytest.mark.parametrize("workers", [1, 2])
def test_every_backend_its_share(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = topology()
    serve(net)
    echo = [service(f, name=f"echo{f}", protocol="udp", ports=5353) for f in FAMILIES]
    balancer(net, config(*map(service, FAMILIES), *echo, workers=workers))
    for family, (protocol, port) in product(FAMILIES, (("tcp", 80), ("udp", 5353))):
        answers = ask(net, protocol, VIP[family], port, 30)
        if workers == 1:
            assert answers == EVEN
        else:
            assert set(answers) == set(EVEN)


def test_python_sees_first_packets_alone(
    topology: Any, serve: Any, config: Any, balancer: Any
) -> None:
    """Eight megabytes and a hundred requests over one connection cost one packet in the queue."""
    net = topology()
    serve(net)
    balancer(net, config(*map(service, FAMILIES)))
    for family in FAMILIES:
        before = seen_by_python(net)
        urls = [url(family, "/big"), *[url(family)] * 100]
        done = net.client.run(["curl", "-sS", "-o", "/dev/null", *urls, "-w", "%{num_connects}\n"])
        assert done.stderr == ""
        assert seen_by_python(net) - before == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_kernel_carries_is_shown(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """Packets and bytes in each direction per backend, at once; live flows soon, without closed
    ones; counts continue when the table is recreated.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family)), trouble=True)

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
    net.balancer.run(["nft", "delete", "table", "ip" if family == 4 else "ip6", "paraglider"])
    await_log(running, "missing on the host, restored")
    assert ask(net, "tcp", VIP[family], 80, 30) == EVEN
    wait_until(lambda: told("bytes_out")[at] > many[at], running.log)

    def total() -> int:
        """The service's number."""
        rows = control(running).get("services")
        return sum(row["bytes_out"] for row in rows if row["service"] == f"web{family}")

    wait_until(lambda: total() == sum(told("bytes_out")), running.log)


def test_ports_are_mapped(topology: Any, serve: Any, config: Any, balancer: Any, ask: Any) -> None:
    """The backends answer on their own port, and the client sees the VIP's."""
    net = topology()
    serve(net, http=(80, 8080))

    def mapped(family: int) -> dict[str, Any]:
        backends = [
            {"address": backend_address(family, 1), "port": 8080},
            {"address": backend_address(family, 2), "port": 8080, "weight": 2},
        ]
        return service(family, ports=81, strategy="wrr", backends=backends)

    balancer(net, config(*map(mapped, FAMILIES)))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 81, 30) == {"backend1": 10, "backend2": 20}


def test_a_range_keeps_the_port(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """A service with several ports sends each to the same one; one with all ports has the rest."""
    net = topology()
    serve(net, http=(80, 8000, 8080))
    services = []
    for family in FAMILIES:
        some = service(family, ports=["8000-8010"], backends=[backend_address(family, 1)])
        rest = service(family, name=f"rest{family}", backends=[backend_address(family, 2)])
        del rest["ports"]
        services += [some, rest]
    balancer(net, config(*services))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 8000, 5) == {"backend1": 5}
        assert ask(net, "tcp", VIP[family], 8080, 5) == {"backend2": 5}


def test_backends_see_the_client_or_the_balancer(
    topology: Any, serve: Any, config: Any, balancer: Any
) -> None:
    """Without ``snat`` the client's address arrives, with it the configured one."""
    net = topology()
    serve(net)
    services = []
    for family in FAMILIES:
        masked = service(family, name=f"masked{family}", ports=8080, snat=GATEWAY[family])
        masked["backends"] = [{"address": address, "port": 80} for address in masked["backends"]]
        services += [service(family), masked]
    balancer(net, config(*services))
    for family in FAMILIES:
        for port, address in ((80, CLIENT[family]), (8080, GATEWAY[family])):
            answer = net.client.run(["curl", "-sS", url(family, "/from", port)]).stdout
            assert answer.strip() == address


def test_hairpin(topology: Any, serve: Any, config: Any, balancer: Any) -> None:
    """A backend, which may get itself, and a client in the backends' own network call the VIP."""
    net = topology()
    serve(net)
    neighbour = net.backends[2]
    two = [service(f, backends=[backend_address(f, n) for n in (1, 2)]) for f in FAMILIES]
    balancer(net, config(*two))
    for family, caller in product(FAMILIES, (net.backends[0], neighbour)):
        command = [
            sys.executable,
            "-m",
            "paraglider.lab.client",
            "tcp",
            VIP[family],
            "80",
            "10",
            "20",
        ]
        lines = caller.run(command, timeout=60).stdout.splitlines()
        answers = Counter(json.loads(line).get("answer") for line in lines)
        assert answers == {"backend1": 5, "backend2": 5}


def test_any_is_tcp_udp_and_ping(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """``protocol: any`` has all three, and only the backends answer pings."""
    net = topology()
    serve(net)
    everything = [service(family, protocol="any") for family in FAMILIES]
    for one in everything:
        del one["ports"]
    balancer(net, config(*everything))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
        assert ask(net, "udp", VIP[family], 5353, 3).total() == 3
        before = seen_by_python(net)
        assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
        assert seen_by_python(net) - before == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_weighted_counts_live_flows(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """Connections that stay open count, those that are closed do not."""
    net = topology()
    serve(net)
    backends = [backend_address(family, 1), {"address": backend_address(family, 2), "weight": 3}]
    text = config(service(family, strategy="weighted", backends=backends))
    running = balancer(net, text, trouble=True)
    assert "paraglider/conn" in children(running)
    held = [Held(net, VIP[family]) for _ in range(12)]
    assert Counter(one.ask() for one in held) == {"backend1": 3, "backend2": 9}
    # The three of the first backend end; the next three fill its place.
    for one in [one for one in held if one.ask() == "backend1"]:
        held.remove(one)
        one.end()
    await_live(running, family, 9)
    more = [Held(net, VIP[family]) for _ in range(4)]
    assert Counter(one.ask() for one in more) == {"backend1": 3, "backend2": 1}
    # A conntrack counter that dies is replaced, and the next one counts the existing connections.
    os.kill(children(running)["paraglider/conn"], signal.SIGKILL)
    await_log(running, 'event="conntrack counter ready"', 2)
    await_live(running, family, 13)
    even_more = [Held(net, VIP[family]) for _ in range(4)]
    assert Counter(one.ask() for one in even_more) == {"backend1": 1, "backend2": 3}
    assert "no worker alive" not in running.log()


def await_live(running: Any, family: int, flows: int) -> None:
    """Wait until the conntrack counter has counted ``flows`` live connections, as workers read
    them.
    """

    def live() -> int:
        return sum(row["flows"] or 0 for row in rows(running, family).values())

    wait_until(lambda: live() == flows, running.log)


def test_beside_nat_on_one_vip(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """One service is offloaded, the other rewritten, by the same worker, on different ports."""
    net = topology()
    serve(net, http=(80, 8080))
    services = []
    for family in FAMILIES:
        rewritten = service(family, name=f"nat{family}", ports=8080, forward="nat")
        names = service(family, name=f"names{family}", protocol="udp", ports=5353)
        services += [service(family), rewritten, names]
    balancer(net, config(*services))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 30) == EVEN
        assert ask(net, "tcp", VIP[family], 8080, 30) == EVEN
        assert ask(net, "udp", VIP[family], 5353, 30) == EVEN
        before = seen_by_python(net)
        assert net.client.run(["curl", "-sS", "-o", "/dev/null", url(family, "/big")]).stderr == ""
        assert seen_by_python(net) - before == 1


def test_through_a_firewall_that_drops(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """A policy of DROP on FORWARD applies to everything except balanced
    packets of both directions.
    """
    net = topology()
    serve(net)
    for program in ("iptables", "ip6tables"):
        net.balancer.run([program, "-P", "FORWARD", "DROP"])
    balancer(net, config(*map(service, FAMILIES)))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 6).total() == 6
        backend = backend_address(family, 1)
        direct = [sys.executable, "-m", "paraglider.lab.client", "tcp", backend, "80", "1"]
        net.client.run(["ip", "route", "add", backend, "via", BALANCER[family]])
        assert "timed out" in net.client.run(direct).stdout


def test_a_client_keeps_its_backend(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """With ``affinity: client`` over two workers all of a client's flows go to one backend, also
    without a daemon.
    """
    net = topology()
    serve(net)
    services = [service(family, affinity="client") for family in FAMILIES]
    running = balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        assert len(ask(net, "tcp", VIP[family], 80, 20)) == 1
    assert running.stop() == 0
    for family in FAMILIES:
        assert len(ask(net, "tcp", VIP[family], 80, 20)) == 1


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_path_mtu_is_found(
    topology: Any,
    serve_peer: Any,
    config: Any,
    balancer: Any,
    peer: Any,
    family: int,
    beside: bool,
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
    services = [service(family, ports=9000)]
    if beside:
        backends = [{"address": backend_address(family, 1), "port": 9000}]
        services[0]["backends"] = [backend_address(family, number) for number in (2, 3)]
        services.append(service(family, name="nat", ports=9001, forward="nat", backends=backends))
    balancer(net, config(*services, workers=2))
    for port in (9000, 9001) if beside else (9000,):
        result = peer(net.client, "down", VIP[family], port, 1_000_000)
        assert result["arrived"] == result["sent"]
    learnt = [
        "mtu 1400" in backend.run(["ip", "route", "get", net.client_address(family)]).stdout
        for backend in net.backends
    ]
    assert learnt.count(True) == (2 if beside else 1)
