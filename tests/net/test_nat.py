"""``forward: nat`` end to end: real servers, real clients, both families."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from carrying import both, by_workers
from clients import asked, hold, pinged
from counting import echo_requests
from services import await_connections, connections_begun
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import CLIENT, VIP, Topology, backend_address

pytestmark = pytest.mark.root

PEER = Path(__file__).parent / "peer.py"
EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
NAMES = set(EVEN)


def url(family: int, port: int = 80, path: str = "/") -> str:
    """The VIP as a URL."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def flows_by_worker(balancer: LabBalancer) -> dict[int, int]:
    """How many flows each worker of a stopped balancer held at its end."""
    lines = re.findall(r"^.*event=stopped .*$", balancer.log(), re.MULTILINE)
    found = (re.search(r"worker=(\d+).* flows=(\d+)", line) for line in lines)
    return {int(match[1]): int(match[2]) for match in found if match}


def test_round_robin_is_even(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Thirty connections, one after the other, over one worker: ten for each backend."""
    net = topology()
    serve(net)
    balancer(net, config(service(4, ports=80), service(6, ports=80)))
    for family in (4, 6):
        assert ask(net, "tcp", VIP[family], 80) == EVEN


def test_the_backend_sees_the_client(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """The backend's log has the client's address; the client only sees the VIP."""
    net = topology()
    serve(net)
    balancer(net, config(service(4, ports=80), service(6, ports=80)))
    for family in (4, 6):
        seen = net.client.run(["curl", "-sS", "--fail", url(family, path="/from")]).stdout.strip()
        assert seen == CLIENT[family]


@both
def test_two_workers_share_the_work(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """With two workers every request is answered, every backend answers, and both workers have
    flows.
    """
    net = topology()
    serve(net)
    services = [service(family, ports=80) for family in (4, 6)]
    services += [
        service(family, name=f"echo{family}", protocol="udp", ports=5353) for family in (4, 6)
    ]
    lasting = {"closed": 3600, "udp": 3600}  # no flow ends before the test does
    running = balancer(net, config(*services, workers=2, timeouts=lasting))
    for family in (4, 6):
        tcp = ask(net, "tcp", VIP[family], 80, 60)
        udp = peer(net.client, "ports", VIP[family], 5353, 60)
        for answers in (tcp, udp):
            assert sum(answers.values()) == 60
            assert set(answers) == NAMES
    assert running.stop() == 0
    flows = flows_by_worker(running)
    assert sum(flows.values()) == 240
    assert min(flows.values()) > 60


@both
def test_load(topology: Any, serve: Any, config: Any, service: Any, balancer: Any) -> None:
    """Concurrent requests over many connections, lasting and new ones, as fast as they go: none
    fails.
    """
    net = topology()
    serve(net)
    services = [service(family, ports=80) for family in (4, 6)]
    balancer(net, config(*services, workers=2))
    begun = connections_begun(net)
    wrk = ["wrk", "-t1", "-c32", "-d100s", "--timeout", "60s"]
    headers = ["Connection: keep-alive", "Connection: close"]
    loads = [
        net.client.popen([*wrk, "-H", header, url(family)], stdout=subprocess.PIPE)
        for family in (4, 6)
        for header in headers
    ]
    await_connections(net, len(loads) * 32 + 200, since=begun)
    for load in loads:
        load.send_signal(signal.SIGINT)  # wrk ends, and says what it has counted
        report = load.communicate(timeout=TIMEOUT)[0].decode()
        assert "Socket errors" not in report, report
        assert "Non-2xx" not in report, report
        assert re.search(r"\b[1-9]\d* requests in", report), report


def test_udp(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """Datagrams from thirty ports: ten for each backend, and every answer from the VIP."""
    net = topology()
    serve(net, http=())
    services = [service(family, protocol="udp", ports=5353) for family in (4, 6)]
    balancer(net, config(*services))
    for family in (4, 6):
        assert peer(net.client, "ports", VIP[family], 5353, 30) == EVEN


def test_name_servers_behind_one_service(
    topology: Any, config: Any, service: Any, balancer: Any
) -> None:
    """dig queries three dnsmasq through `any`: over UDP and TCP each answers in turn."""
    net = topology()
    for number, backend in enumerate(net.backends, 1):
        start_dnsmasq(backend, f"backend{number}")
    balancer(net, config(*(service(family, protocol="any") for family in (4, 6))))
    for family in (4, 6):
        for option in ("+notcp", "+tcp"):
            command = [
                "dig",
                f"@{VIP[family]}",
                "who.test",
                "TXT",
                "+short",
                "+tries=1",
                "+time=30",
                option,
            ]
            answers = Counter(net.client.run(command).stdout.strip() for _ in range(6))
            assert answers == {'"backend1"': 2, '"backend2"': 2, '"backend3"': 2}


def start_dnsmasq(namespace: Namespace, name: str) -> None:
    """A name server that answers a TXT query for who.test with its own name."""
    record = f"--txt-record=who.test,{name}"
    namespace.popen(["dnsmasq", "-k", "-R", "-h", "-u", "root", "-x", "", "-p", "53", record])
    listing = ["ss", "-Hltn"]
    wait_until(lambda: len(re.findall(r":53\s", namespace.run(listing).stdout)) >= 2)


@both
def test_any_takes_all_ports_and_echo(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """`any` without ports: TCP and UDP on every port, and ICMP echo, reach the backends."""
    net = topology()
    serve(net, http=(80, 8080, 65000), udp=(53, 5353))
    balancer(net, config(*(service(family, protocol="any") for family in (4, 6))))
    for family in (4, 6):
        for port in (80, 8080, 65000):
            assert set(ask(net, "tcp", VIP[family], port, 3)) == NAMES
        for port in (53, 5353):
            assert set(peer(net.client, "ports", VIP[family], port, 3)) == NAMES
        before = echo_requests(net, family)
        assert ask(net, "ping", VIP[family], 0, 30) == {"": 30}
        each = [now - b for now, b in zip(echo_requests(net, family), before, strict=True)]
        assert sum(each) >= 30  # and those that were sent again
        assert max(each) - min(each) <= 1
        pinged(net.client, VIP[family], "-c", "3", "-i", "0.01", "-s", "1400")


def test_echo_of_other_services_is_the_hosts(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """Without an `any` service, the balancer itself answers a ping of the VIP."""
    net = topology()
    serve(net)
    balancer(net, config(*(service(family, ports=80) for family in (4, 6))))
    for family in (4, 6):
        before = echo_requests(net, family)
        pinged(net.client, VIP[family])
        assert echo_requests(net, family) == before


@both
def test_ports_are_mapped(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """A backend with a port is reached there, one without on the service's port."""
    net = topology()
    serve(net, http=(80, 8080), udp=(5353, 9999))
    services = []
    for family in (4, 6):
        mapped = [
            {"address": backend_address(family, 1), "port": 8080},
            backend_address(family, 2),
            {"address": backend_address(family, 3), "port": 80},
        ]
        services.append(service(family, ports=8080) | {"backends": mapped})
        mapped = [{"address": backend_address(family, n), "port": 9999} for n in (1, 2, 3)]
        services.append(
            service(family, name=f"echo{family}", protocol="udp", ports=53) | {"backends": mapped}
        )
    balancer(net, config(*services, workers=2))
    for family in (4, 6):
        tcp = ask(net, "tcp", VIP[family], 8080, 30)
        assert (set(tcp), tcp.total()) == (NAMES, 30)
        udp = peer(net.client, "ports", VIP[family], 53, 30)
        assert (set(udp), sum(udp.values())) == (NAMES, 30)


def test_port_lists_and_ranges(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """A list with a range: each of its ports is balanced, the ports beside it are not."""
    net = topology()
    serve(net, http=(80, 443, 8000, 8050, 8099, 8100), udp=())
    balancer(net, config(*(service(f, ports=[80, 443, "8000-8099"]) for f in (4, 6))))
    for family in (4, 6):
        for port in (80, 443, 8000, 8050, 8099):
            assert set(ask(net, "tcp", VIP[family], port, 3)) == NAMES
        for port in (81, 7999, 8100):
            assert peer(net.client, "connect", VIP[family], port) == {"error": "ECONNREFUSED"}


@both
def test_services_beside_each_other(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Services on one VIP, with pools of their own: the narrower claim of a port wins."""
    net = topology()
    serve(net, http=(80, 8080, 9000), udp=())
    services: list[dict[str, Any]] = []
    for family in (4, 6):
        one, two, three = (backend_address(family, n) for n in (1, 2, 3))
        services += [
            service(family, name=f"exact{family}", ports=80) | {"backends": [one]},
            service(family, name=f"range{family}", ports="8000-8999") | {"backends": [two]},
            service(family, name=f"rest{family}") | {"backends": [three]},
        ]
    balancer(net, config(*services))
    for family in (4, 6):
        assert ask(net, "tcp", VIP[family], 80, 3) == {"backend1": 3}
        assert ask(net, "tcp", VIP[family], 8080, 3) == {"backend2": 3}
        assert ask(net, "tcp", VIP[family], 9000, 3) == {"backend3": 3}


@pytest.mark.parametrize("strategy", ["wrr", "weighted"])
def test_weights(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, strategy: str
) -> None:
    """Sixty connections that last, over weights 3, 2, 1: thirty, twenty, ten."""
    net = topology()
    serve(net, udp=())
    weighed = [service(f, ports=80, strategy=strategy, weights=(3, 2, 1)) for f in (4, 6)]
    balancer(net, config(*weighed))
    for family in (4, 6):
        answers = Counter(asked(hold(net, family, 60)))
        assert answers == {"backend1": 30, "backend2": 20, "backend3": 10}


def test_weighted_shares_flows_that_end(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Each connection ends about when the next begins: ties are not always resolved alike."""
    net = topology()
    serve(net, udp=())
    balancer(net, config(service(4, ports=80, strategy="weighted", weights=(1, 1, 1))))
    answers = ask(net, "tcp", VIP[4], 80, 60)
    assert set(answers) == NAMES
    assert min(answers.values()) >= 10


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_exempt_endpoints_are_left_alone(
    topology: Any,
    serve: Any,
    config: Any,
    service: Any,
    balancer: Any,
    ask: Any,
    peer: Any,
    forward: str,
) -> None:
    """An exempt endpoint on the VIP is answered by the balancer itself, the rest is balanced."""
    net = topology()
    serve(net, udp=(53, 5353))
    exempt = [f"{VIP[4]}:53/udp", f"[{VIP[6]}]:53/udp"]
    text = config(*(service(family, protocol="any", forward=forward) for family in (4, 6)))
    text = text.replace("network:\n", f"network:\n  exempt: {exempt}\n")
    balancer(net, text)
    start_dnsmasq(net.balancer, "balancer")
    for family in (4, 6):
        dig = ["dig", f"@{VIP[family]}", "who.test", "TXT", "+short", "+tries=1", "+notcp"]
        for _ in range(4):
            assert net.client.run(dig).stdout.strip() == '"balancer"'
        assert set(peer(net.client, "ports", VIP[family], 5353, 6)) == NAMES
        assert set(ask(net, "tcp", VIP[family], 80, 6)) == NAMES


def test_the_host_may_call_its_own_vip(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Packets of the balancer's host to the VIP are local; the client is balanced."""
    net = topology()
    serve(net)
    balancer(net, config(*(service(family, ports=80) for family in (4, 6))))
    start_backend(net.balancer, "balancer", http=(80,))
    for family in (4, 6):
        assert net.balancer.run(["curl", "-sS", url(family)]).stdout.strip() == "balancer"
        assert set(ask(net, "tcp", VIP[family], 80, 6)) == NAMES


def test_a_port_without_service(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """A port without a service is refused at once by the host, as on any other host."""
    net = topology()
    serve(net)
    balancer(net, config(*(service(family, ports=80) for family in (4, 6))))
    for family in (4, 6):
        assert peer(net.client, "connect", VIP[family], 81) == {"error": "ECONNREFUSED"}
        assert peer(net.client, "udp", VIP[family], 81, 10) == {"error": "ECONNREFUSED"}


@by_workers
def test_unknown_flows_and_missing_workers(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """Without a worker there is no answer, not even RST; after a restart without the journals, the
    next segment of an old connection is answered by RST, so that the client reconnects at once.
    """
    forget = (
        "from paraglider.host.journal_files import leftovers; [p.unlink() for p in leftovers()]"
    )
    net = topology()
    serve_peer(net, 9000)
    running = balancer(net, config(*(service(f, ports=9000) for f in (4, 6)), workers=2))
    waiting = {family: start_pause(net, family) for family in (4, 6)}
    assert running.stop() == 0
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda f: peer(net.client, "connect", VIP[f], 9000, 1), waiting)
        assert list(found) == [{"error": "timed out"}] * 2
    net.balancer.run([sys.executable, "-c", forget])
    running.start()
    for family, one in waiting.items():
        out, _ = one.communicate(b"go on\n", timeout=30)
        assert out.strip() == b'{"error": "ECONNRESET"}'
        assert peer(net.client, "connect", VIP[family], 9000) == {"connected": True}


def start_pause(net: Topology, family: int) -> subprocess.Popen[bytes]:
    """A connection that waits for its continuation."""
    started = net.client.popen(
        [sys.executable, str(PEER), "pause", VIP[family], "9000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b'"connected"\n'
    return started
