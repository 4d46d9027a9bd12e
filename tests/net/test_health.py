"""Health end to end: real backends that hang, refuse, appear; pings of whole networks.

The checker runs alone, in the balancer's namespace; the effects of its reports are tested with the
balancer.
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import TIMEOUT, wait_until

from paraglider.config.health import Check, Failover
from paraglider.core.pool import Event
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, SetTargets
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.targets import Scope, Target
from paraglider.lab.balancer import start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import GATEWAY, PRIVATE_PREFIX, VIP, Topology, backend_address

pytestmark = pytest.mark.root

News = CheckReport | HealthChange | DiscoveredHost
DRIVER = Path(__file__).parent / "checking.py"
HOST = {4: "32", 6: "128 nodad"}
DEAF = ("net.ipv4.icmp_echo_ignore_broadcasts=1", "net.ipv6.icmp.echo_ignore_multicast=1")
FAMILIES = pytest.mark.parametrize("family", [4, 6])


class Checking:
    """A running checker in a namespace, and its reports so far."""

    def __init__(self, where: Namespace) -> None:
        self.news: list[News] = []
        self._process = where.popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def order(self, targets: Sequence[Target], scope: Scope | None = None) -> None:
        """Send it these targets."""
        assert self._process.stdin is not None
        self._process.stdin.write(encode(SetTargets.of(targets, scope)) + b"\n")
        self._process.stdin.flush()

    def until(self, true: Callable[[], object]) -> None:
        """Wait for it."""

        def running() -> bool:
            assert self._process.poll() is None, "the checker ended"
            return bool(true())

        wait_until(running, lambda: self.news[-20:])

    def reports(self, backend: str) -> list[CheckReport]:
        """The results of a backend's checks."""
        return [n for n in self.news if isinstance(n, CheckReport) and n.backend == backend]

    @property
    def verdicts(self) -> list[tuple[str, bool]]:
        """The backends that went up (True) or down."""
        found = [n for n in self.news if isinstance(n, HealthChange)]
        return [(n.backend, n.event is Event.CHECK_PASSED) for n in found]

    @property
    def found(self) -> list[tuple[str, bool]]:
        """The hosts that joined (True) or left."""
        return [(str(n.address), n.up) for n in self.news if isinstance(n, DiscoveredHost)]

    def end(self) -> None:
        """Stop it; it has to end well."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(TIMEOUT) == 0

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = FROM_ROLE["monitor"].validate_json(line)
            self.news.extend((*news.reports, *news.changes, *news.hosts))


@pytest.fixture
def checking(topology: Any) -> Iterator[Callable[[Topology], Checking]]:
    """A factory of checkers in the balancer's namespace."""
    made: list[Checking] = []

    def make(net: Topology) -> Checking:
        made.append(Checking(net.balancer))
        return made[-1]

    yield make
    for checker in made:
        checker.end()


def targets(family: int, numbers: Sequence[int], **check: Any) -> list[Target]:
    """Backends of the topology, with a check or without; a busy machine has time to answer."""
    checked = Check(interval=0.2, **{"timeout": 30, **check}) if check else None
    addresses = [ipaddress.ip_address(backend_address(family, number)) for number in numbers]
    return [Target("web", str(address), address, 80, checked) for address in addresses]


def scope(family: int, **settings: Any) -> Scope:
    """The backends' network of the topology, swept several times a second."""
    failover = Failover(**{"check_cycle": 0.2, "timeout": 2, "rise": 1, "fall": 2, **settings})
    network = ipaddress.ip_interface(f"{GATEWAY[family]}/{PRIVATE_PREFIX[family]}").network
    gateway = ipaddress.ip_address(GATEWAY[family])
    if family == 4:
        return Scope(failover, (network.broadcast_address,))
    return Scope(failover, interface="eth1", sources=(gateway,))


def answer_broadcasts(*backends: Namespace) -> None:
    """Answer broadcast pings, as loaded required of its backends, where the kernel does not."""
    for backend in backends:
        backend.sysctl("net.ipv4.icmp_echo_ignore_broadcasts=0")


@pytest.mark.parametrize(("family", "kind"), [(4, "icmp"), (6, "icmp"), (6, "tcp"), (4, "http")])
def test_a_backend_falls_silent(
    topology: Any, serve: Any, checking: Any, family: int, kind: str
) -> None:
    """A backend whose cable is pulled goes down, and comes up when it is back; others stay."""
    net = topology(backends=2, gateways=True)
    serve(net, udp=())
    checker = checking(net)
    # A busy machine answers in time.
    silent = targets(family, (1,), type=kind, timeout=5, fall=1)
    checker.order([*silent, *targets(family, (2,), type=kind)])
    first, second = (backend_address(family, number) for number in (1, 2))
    checker.until(lambda: all(len(checker.reports(b)) > 2 for b in (first, second)))
    assert all(report.passed for b in (first, second) for report in checker.reports(b))
    net.switch.ip("link set backend1 down")
    checker.until(lambda: checker.verdicts == [(first, False)])
    detail = checker.reports(first)[-1].detail
    assert "timed out after 5 s" in detail or "no route to host" in detail
    net.switch.ip("link set backend1 up")
    checker.until(lambda: checker.verdicts == [(first, False), (first, True)])
    assert all(report.passed for report in checker.reports(second))


@FAMILIES
def test_a_service_ends(topology: Any, serve: Any, checking: Any, family: int) -> None:
    """If the host is up and the service is not, its connections are refused."""
    net = topology(backends=1, gateways=True)
    serve(net, udp=())
    checker = checking(net)
    checker.order(targets(family, (1,), type="http", expect={"body": "backend1"}))
    address = backend_address(family, 1)
    checker.until(lambda: len(checker.reports(address)) > 2)
    assert [report.detail for report in checker.reports(address)][-1] == "status 200"
    for pid in net.backends[0].pids():
        net.backends[0].run(["kill", str(pid)], check=False)
    checker.until(lambda: checker.verdicts == [(address, False)])
    assert checker.reports(address)[-1].detail == "connect: connection refused"


@FAMILIES
def test_failover_finds_servers(topology: Any, checking: Any, family: int) -> None:
    """Of hosts that answer a ping of the network, those that serve join, and leave when they fail.
    Hosts that do not serve never join, and neither does the balancer, which serves on all its
    addresses: the gateway, its own, a VIP on the private side.
    """
    net = topology(backends=2, gateways=True)
    answer_broadcasts(net.balancer, *net.backends)
    net.balancer.ip(f"address add {VIP[family]}/{HOST[family]} dev eth1")
    start_backend(net.balancer, "ours", http=(80,), udp=())
    start_backend(net.backends[0], "backend1", http=(80,), udp=())
    start_backend(net.backends[1], "backend2", http=(81,), udp=())
    checker = checking(net)
    checker.order([], scope(family))
    address = backend_address(family, 1)
    checker.until(lambda: checker.found == [(address, True)])
    net.switch.ip("link set backend1 down")
    checker.until(lambda: len(checker.found) > 1)
    assert checker.found == [(address, True), (address, False)]


@FAMILIES
def test_failover_of_the_listed(topology: Any, checking: Any, family: int) -> None:
    """Hosts that ignore broadcast pings are pinged individually; failed ones
    go down, and return.
    """
    net = topology(backends=3, gateways=True)
    net.backends[0].sysctl(*DEAF)
    answer_broadcasts(*net.backends[1:])
    for number, port in enumerate((80, 81, 80)):
        start_backend(net.backends[number], f"backend{number + 1}", http=(port,), udp=())
    checker = checking(net)
    checker.order(targets(family, (1, 2)), scope(family, discover=False))
    deaf, closed = (backend_address(family, number) for number in (1, 2))
    checker.until(lambda: checker.verdicts == [(closed, False)])
    start_backend(net.backends[1], "backend2", http=(80,), udp=())
    checker.until(lambda: checker.verdicts == [(closed, False), (closed, True)])
    net.switch.ip("link set backend1 down")
    checker.until(lambda: checker.verdicts[2:] == [(deaf, False)])
    net.switch.ip("link set backend1 up")
    checker.until(lambda: checker.verdicts[2:] == [(deaf, False), (deaf, True)])
    assert checker.found == []
