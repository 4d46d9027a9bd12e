"""``forward: nat`` end to end: real servers, real clients, both families.

The tests share a network, and most of them one balancer with one worker: each has services on a VIP
of its own, numbered as in ``services_of``.
"""

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
from clients import asked, hold
from counting import echo_requests
from evenly import EVEN, assert_even
from services import await_connections, http_service
from serving import start_dnsmasq
from sharing import Shared, vip
from unsent import pinged
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.topology import CLIENT, PUBLIC_PREFIX, VIP, Topology, backend_address

pytestmark = pytest.mark.root

PEER = Path(__file__).parent / "peer.py"
NAMES = set(EVEN)
FAMILIES = (4, 6)
HTTP = (80, 81, 82, 83, 84, 443, 8000, 8050, 8080, 8099, 8100, 9000, 65000)
UDP = (5300, 5353, 9999)
#: ports of backends at which one service alone is asked, for what must be even (``evenly``)
EVEN_TCP, EVEN_UDP = 85, 5385
MAPPED = (86, 87, 88)
TRANSFERS = 9900
EXEMPT = 7  # number of the VIP with an exempt endpoint


class World:
    """The network, and its services with one carrier."""

    def __init__(self, shared: Shared, carrier: str) -> None:
        self.shared = shared
        self.net = shared.net
        self.carrier = carrier

    def service(self, family: int, name: str, number: int = 1, **changes: Any) -> dict[str, Any]:
        """A service of all ports of TCP, unless changed, on a VIP."""
        made = http_service(family, name=f"{name}{family}", carrier=self.carrier, **changes)
        if "ports" not in changes:
            del made["ports"]
        return made | {"vip": f"{vip(family, number)}/{PUBLIC_PREFIX[family]}"}

    def services_of(self, family: int) -> list[dict[str, Any]]:
        """The services of the balancer with one worker."""
        one, two, three = everyone = [backend_address(family, n) for n in (1, 2, 3)]
        first, second, third = MAPPED
        mapped = [{"address": one, "port": first}, two, {"address": three, "port": third}]
        far = [{"address": address, "port": 9999} for address in everyone]
        wrr, weighted, even = (
            [{"address": a, "weight": w, "port": p} for a, w in zip(everyone, ws, strict=True)]
            for p, ws in ((83, (3, 2, 1)), (84, (3, 2, 1)), (82, (1, 1, 1)))
        )
        made = self.service
        return [
            made(family, "web", ports=[80, EVEN_TCP]),
            made(family, "echo", ports=[5353, EVEN_UDP], protocol="udp"),
            made(family, "any", 2, protocol="any"),
            made(family, "mapped", 3, ports=second, backends=mapped),
            made(family, "far", 3, ports=53, protocol="udp", backends=far),
            made(family, "list", 4, ports=[80, 443, "8000-8099"]),
            made(family, "exact", 5, ports=80, backends=[one]),
            made(family, "range", 5, ports="8000-8999", backends=[two]),
            made(family, "rest", 5, backends=[three]),
            made(family, "wrr", 6, ports=80, strategy="wrr", backends=wrr),
            made(family, "weighted", 6, ports=81, strategy="weighted", backends=weighted),
            made(family, "even", 6, ports=82, strategy="weighted", backends=even),
            made(family, "exempt", EXEMPT, protocol="any"),
        ]

    def work(self) -> LabBalancer:
        """The balancer with one worker."""
        # What is remembered of one service is in the way of another, see ``evenly``.
        services = (each for f in FAMILIES for each in self.services_of(f))
        text = self.shared.config(*services, timeouts={"closed": 1, "udp": 10})
        exempt = [f"{vip(4, EXEMPT)}:53/udp", f"[{vip(6, EXEMPT)}]:53/udp"]
        return self.shared.balancer(text.replace("network:\n", f"network:\n  exempt: {exempt}\n"))

    def two_workers(self) -> LabBalancer:
        """The balancer with two workers, whose flows do not end before the test does."""
        services = [self.service(family, "web", ports=80) for family in FAMILIES]
        services += [self.service(f, "echo", ports=5353, protocol="udp") for f in FAMILIES]
        lasting = {"closed": 3600, "udp": 3600}
        return self.shared.balancer(self.shared.config(*services, workers=2, timeouts=lasting))


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers; name servers answer at port 53."""
    made: Shared = sharing()
    made.serve(http=(*HTTP, EVEN_TCP, *MAPPED), udp=(*UDP, EVEN_UDP))
    made.serve_peer(TRANSFERS)
    for number, backend in enumerate(made.net.backends, 1):
        start_dnsmasq(backend, f"backend{number}")
    return made


@pytest.fixture(scope="module")
def world(shared: Shared, request: pytest.FixtureRequest) -> World:
    """The network, with services of the default carrier or the one that a mark names."""
    return World(shared, getattr(request, "param", "bpf"))


@pytest.fixture
def net(world: World) -> Topology:
    """The network, with the balancer with one worker."""
    world.work()
    return world.net


#: a test with either carrier, and one with the default: the parameter brings together what shares
both = pytest.mark.parametrize("world", ["worker", "bpf"], indirect=True, scope="module")
default = pytest.mark.parametrize("world", ["bpf"], indirect=True, scope="module")
by_workers = pytest.mark.parametrize("world", ["worker"], indirect=True, scope="module")


def url(address: str, port: int = 80, path: str = "/") -> str:
    """A URL."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


def flows_by_worker(balancer: LabBalancer) -> dict[int, int]:
    """How many flows each worker of a stopped balancer held at its end."""
    lines = re.findall(r"^.*event=stopped .*$", balancer.log(), re.MULTILINE)
    found = (re.search(r"worker=(\d+).* flows=(\d+)", line) for line in lines)
    return {int(match[1]): int(match[2]) for match in found if match}


@default
def test_round_robin_is_even(net: Topology, ask: Any) -> None:
    """Thirty connections, one after the other, over one worker: ten for each backend."""
    for family in FAMILIES:
        assert_even(ask, net, "tcp", VIP[family], EVEN_TCP)


@default
def test_the_backend_sees_the_client(net: Topology) -> None:
    """The backend's log has the client's address; the client only sees the VIP."""
    for family in FAMILIES:
        address = url(VIP[family], path="/from")
        seen = net.client.run(["curl", "-sS", "--fail", address]).stdout.strip()
        assert seen == CLIENT[family]


@default
def test_udp(net: Topology, peer: Any) -> None:
    """Datagrams from thirty ports: ten for each backend, and every answer from the VIP."""
    for family in FAMILIES:
        assert peer(net.client, "ports", VIP[family], EVEN_UDP, 30) == EVEN


@default
def test_name_servers_behind_one_service(net: Topology) -> None:
    """dig queries three dnsmasq through `any`: over UDP and TCP each answers in turn."""
    for family in FAMILIES:
        for option in ("+notcp", "+tcp"):
            asking = [*dig(vip(family, 2)), option]
            answers = Counter(net.client.run(asking).stdout.strip() for _ in range(6))
            assert answers == {'"backend1"': 2, '"backend2"': 2, '"backend3"': 2}


def dig(address: str) -> list[str]:
    """The command that asks a name server who it is, once."""
    return ["dig", f"@{address}", "who.test", "TXT", "+short", "+tries=1", "+time=30"]


@both
def test_any_takes_all_ports_and_echo(net: Topology, ask: Any, peer: Any) -> None:
    """`any` without ports: TCP and UDP on every port, and ICMP echo, reach the backends."""
    for family in FAMILIES:
        address = vip(family, 2)
        for port in (80, 8080, 65000):
            assert set(ask(net, "tcp", address, port, 3)) == NAMES
        for port in (5300, 5353):
            assert set(peer(net.client, "ports", address, port, 3)) == NAMES
        before = echo_requests(net, family)
        assert ask(net, "ping", address, 0, 30) == {"": 30}
        each = [now - b for now, b in zip(echo_requests(net, family), before, strict=True)]
        assert sum(each) >= 30  # and those that were sent again
        assert max(each) - min(each) <= 1
        pinged(net.client, address, "-s", "1400", count=3)


@default
def test_echo_of_other_services_is_the_hosts(net: Topology) -> None:
    """Without an `any` service, the balancer itself answers a ping of the VIP."""
    for family in FAMILIES:
        before = echo_requests(net, family)
        pinged(net.client, VIP[family])
        assert echo_requests(net, family) == before


@both
def test_ports_are_mapped(net: Topology, ask: Any, peer: Any) -> None:
    """A backend with a port is reached there, one without on the service's port."""
    for family in FAMILIES:
        assert_even(ask, net, "tcp", vip(family, 3), MAPPED[1])
        assert peer(net.client, "ports", vip(family, 3), 53, 30) == EVEN


@default
def test_port_lists_and_ranges(net: Topology, ask: Any, peer: Any) -> None:
    """A list with a range: each of its ports is balanced, the ports beside it are not."""
    for family in FAMILIES:
        for port in (80, 443, 8000, 8050, 8099):
            assert set(ask(net, "tcp", vip(family, 4), port, 3)) == NAMES
        for port in (81, 7999, 8100):
            assert peer(net.client, "connect", vip(family, 4), port) == {"error": "ECONNREFUSED"}


@both
def test_services_beside_each_other(net: Topology, ask: Any) -> None:
    """Services on one VIP, with pools of their own: the narrower claim of a port wins."""
    for family in FAMILIES:
        assert ask(net, "tcp", vip(family, 5), 80, 3) == {"backend1": 3}
        assert ask(net, "tcp", vip(family, 5), 8080, 3) == {"backend2": 3}
        assert ask(net, "tcp", vip(family, 5), 9000, 3) == {"backend3": 3}


@default
@pytest.mark.parametrize("port", [80, 81], ids=["wrr", "weighted"])
def test_weights(net: Topology, port: int) -> None:
    """Sixty connections that last, over weights 3, 2, 1: thirty, twenty, ten."""
    for family in FAMILIES:
        held = hold(net, family, 60, vip(family, 6), port)
        answers = Counter(asked(held))
        held.communicate(timeout=TIMEOUT)
        assert answers == {"backend1": 30, "backend2": 20, "backend3": 10}


@default
def test_weighted_shares_flows_that_end(net: Topology, ask: Any) -> None:
    """Each connection ends about when the next begins: ties are not always resolved alike."""
    answers = ask(net, "tcp", vip(4, 6), 82, 60)
    assert set(answers) == NAMES
    assert min(answers.values()) >= 10


@default
def test_exempt_endpoints_are_left_alone(net: Topology, ask: Any, peer: Any) -> None:
    """An exempt endpoint on the VIP is answered by the balancer itself, the rest is balanced."""
    start_dnsmasq(net.balancer, "balancer")
    for family in FAMILIES:
        address = vip(family, EXEMPT)
        for _ in range(4):
            assert net.client.run([*dig(address), "+notcp"]).stdout.strip() == '"balancer"'
        assert set(peer(net.client, "ports", address, 5353, 6)) == NAMES
        assert set(ask(net, "tcp", address, 80, 6)) == NAMES


@default
def test_the_host_may_call_its_own_vip(net: Topology, ask: Any) -> None:
    """Packets of the balancer's host to the VIP are local; the client is balanced."""
    start_backend(net.balancer, "balancer", http=(80,))
    for family in FAMILIES:
        assert net.balancer.run(["curl", "-sS", url(VIP[family])]).stdout.strip() == "balancer"
        assert set(ask(net, "tcp", VIP[family], 80, 6)) == NAMES


@default
def test_a_port_without_service(net: Topology, peer: Any) -> None:
    """A port without a service is refused at once by the host, as on any other host."""
    for family in FAMILIES:
        assert peer(net.client, "connect", VIP[family], 81) == {"error": "ECONNREFUSED"}
        assert peer(net.client, "udp", VIP[family], 81, 10) == {"error": "ECONNREFUSED"}


@both
def test_two_workers_share_the_work(world: World, ask: Any, peer: Any) -> None:
    """With two workers every request is answered, every backend answers, and both workers have
    flows.
    """
    world.shared.end()
    running = world.two_workers()
    for family in FAMILIES:
        tcp = ask(world.net, "tcp", VIP[family], 80, 60)
        udp = peer(world.net.client, "ports", VIP[family], 5353, 60)
        for answers in (tcp, udp):
            assert sum(answers.values()) == 60
            assert set(answers) == NAMES
    assert running.stop() == 0
    flows = flows_by_worker(running)
    assert sum(flows.values()) == 240
    assert min(flows.values()) > 60


@both
def test_load(world: World) -> None:
    """Concurrent requests over many connections, lasting and new ones, as fast as they go: none
    fails.
    """
    world.two_workers()
    net = world.net
    wrk = ["wrk", "-t1", "-c32", "-d100s", "--timeout", "60s"]
    headers = ["Connection: keep-alive", "Connection: close"]
    loads = [
        net.client.popen([*wrk, "-H", header, url(VIP[family])], stdout=subprocess.PIPE)
        for family in FAMILIES
        for header in headers
    ]
    wait_until(lambda: all(begins(load.pid) for load in loads))
    await_connections(net, 200)  # each has some answers by then
    for load in loads:
        load.send_signal(signal.SIGINT)  # wrk ends, and says what it has counted
        report = load.communicate(timeout=TIMEOUT)[0].decode()
        assert "Socket errors" not in report, report
        assert "Non-2xx" not in report, report
        assert re.search(r"\b[1-9]\d* requests in", report), report


def begins(pid: int) -> bool:
    """Whether the process has connections, and a handler of SIGINT."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        links = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # a descriptor is being closed
        return False
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    handles = caught is not None and int(caught[1], 16) & 1 << signal.SIGINT - 1 > 0
    return handles and any(link.startswith("socket:") for link in links)


@by_workers
def test_unknown_flows_and_missing_workers(world: World, peer: Any) -> None:
    """Without a worker there is no answer, not even RST; after a restart without the journals, the
    next segment of an old connection is answered by RST, so that the client reconnects at once.
    """
    forget = (
        "from paraglider.host.journal_files import leftovers; [p.unlink() for p in leftovers()]"
    )
    net = world.net
    services = [world.service(f, "web", ports=TRANSFERS) for f in FAMILIES]
    running = world.shared.balancer(world.shared.config(*services, workers=2), apart=True)
    waiting = {family: start_pause(net, family) for family in FAMILIES}
    assert running.stop() == 0
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda f: peer(net.client, "connect", VIP[f], TRANSFERS, 1), waiting)
        assert list(found) == [{"error": "timed out"}] * 2
    net.balancer.run([sys.executable, "-c", forget])
    running.start()
    for family, one in waiting.items():
        out, _ = one.communicate(b"go on\n", timeout=TIMEOUT)
        assert out.strip() == b'{"error": "ECONNRESET"}'
        assert peer(net.client, "connect", VIP[family], TRANSFERS) == {"connected": True}


def start_pause(net: Topology, family: int) -> subprocess.Popen[bytes]:
    """A connection that waits for its continuation."""
    started = net.client.popen(
        [sys.executable, str(PEER), "pause", VIP[family], str(TRANSFERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b'"connected"\n'
    return started
