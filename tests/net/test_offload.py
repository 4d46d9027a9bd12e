"""``forward: offload`` over real servers and clients, both families: what arrives, and at whom."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import pytest

from paraglider.lab.balancer import Balancer
from paraglider.lab.topology import (
    BALANCER,
    CLIENT,
    GATEWAY,
    PRIVATE_PREFIX,
    VIP,
    Topology,
    backend_address,
    join,
)

pytestmark = pytest.mark.root

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, offloaded."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "forward": "offload",
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def url(family: int, path: str = "/", port: int = 80) -> str:
    """A URL on the VIP."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def seen_by_python(net: Topology) -> int:
    """Packets that the kernel has queued so far, all queues together."""
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return sum(int(line.split()[7]) for line in table.splitlines())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_backend_its_share(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = topology()
    serve(net)
    echo = service(family, name="echo", protocol="udp", ports=5353)
    balancer(net, config(service(family), echo, workers=workers))
    for protocol, port in (("tcp", 80), ("udp", 5353)):
        answers = ask(net, protocol, VIP[family], port, 30)
        if workers == 1:
            assert answers == EVEN
        else:
            assert set(answers) == set(EVEN)


@pytest.mark.parametrize("family", FAMILIES)
def test_python_sees_first_packets_alone(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """Eight megabytes and a hundred requests over one connection cost one packet in the queue."""
    net = topology()
    serve(net)
    balancer(net, config(service(family)))
    before = seen_by_python(net)
    urls = [url(family, "/big"), *[url(family)] * 100]
    done = net.client.run(["curl", "-sS", "-o", "/dev/null", *urls, "-w", "%{num_connects}\n"])
    assert done.stderr == ""
    assert seen_by_python(net) - before == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_are_mapped(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """Each backend on a port of its own, and the answer comes from the VIP's."""
    net = topology()
    serve(net, http=(80, 8080))
    backends = [
        {"address": backend_address(family, 1), "port": 8080},
        {"address": backend_address(family, 2), "port": 8080, "weight": 2},
        backend_address(family, 3),
    ]
    balancer(net, config(service(family, ports=81, strategy="wrr", backends=backends[:2])))
    assert ask(net, "tcp", VIP[family], 81, 30) == {"backend1": 10, "backend2": 20}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_range_keeps_the_port(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """A service with several ports sends each to the same one; one with all ports has the rest."""
    net = topology()
    serve(net, http=(80, 8000, 8080))
    some = service(family, ports=["8000-8010"], backends=[backend_address(family, 1)])
    rest = service(family, name="rest", backends=[backend_address(family, 2)])
    del rest["ports"]
    balancer(net, config(some, rest))
    assert ask(net, "tcp", VIP[family], 8000, 5) == {"backend1": 5}
    assert ask(net, "tcp", VIP[family], 8080, 5) == {"backend2": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_backends_see_the_client_or_the_balancer(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """Without ``snat`` the client's own address arrives, with it the one it names."""
    net = topology()
    serve(net)
    masked = service(family, name="masked", ports=8080, snat=GATEWAY[family])
    masked["backends"] = [{"address": address, "port": 80} for address in masked["backends"]]
    balancer(net, config(service(family), masked))
    for port, address in ((80, CLIENT[family]), (8080, GATEWAY[family])):
        answer = net.client.run(["curl", "-sS", url(family, "/from", port)]).stdout
        assert answer.strip() == address


@pytest.mark.parametrize("family", FAMILIES)
def test_hairpin(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """A backend, which may get itself, and a client in the backends' own network call the VIP."""
    net = topology()
    serve(net)
    neighbour = net.backends[2]
    balancer(net, config(service(family, backends=[backend_address(family, n) for n in (1, 2)])))
    for caller in (net.backends[0], neighbour):
        command = [sys.executable, "-m", "paraglider.lab.client", "tcp", VIP[family], "80", "10"]
        lines = caller.run(command, timeout=60).stdout.splitlines()
        answers = Counter(json.loads(line).get("answer") for line in lines)
        assert answers == {"backend1": 5, "backend2": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_is_tcp_udp_and_ping(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """``protocol: any`` has all three, and nobody but the backends answers the ping."""
    net = topology()
    serve(net)
    everything = service(family, protocol="any")
    del everything["ports"]
    balancer(net, config(everything))
    assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
    assert ask(net, "udp", VIP[family], 5353, 3).total() == 3
    before = seen_by_python(net)
    assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
    assert seen_by_python(net) - before == 6
