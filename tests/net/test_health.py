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
from failing import kill
from serving import start_dnsmasq
from waiting import TIMEOUT, wait_until

from paraglider.config.health import Check, Failover
from paraglider.core.pool import Event
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, SetTargets
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.targets import Key, Scope, Target
from paraglider.lab.balancer import start_backend
from paraglider.lab.namespace import Namespace, end_processes
from paraglider.lab.topology import GATEWAY, PRIVATE_PREFIX, VIP, Topology, backend_address

pytestmark = pytest.mark.root

News = CheckReport | HealthChange | DiscoveredHost
DRIVER = Path(__file__).parent / "checking.py"
HOST = {4: "32", 6: "128 nodad"}
HEARING = ("net.ipv4.icmp_echo_ignore_broadcasts=0", "net.ipv6.icmp.echo_ignore_multicast=0")
DEAF = ("net.ipv4.icmp_echo_ignore_broadcasts=1", "net.ipv6.icmp.echo_ignore_multicast=1")
FAMILIES = (4, 6)


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

    def of(self, key: Key) -> list[CheckReport]:
        """The results of the checks of one backend of one service."""
        return [report for report in self.reports(key[1]) if report.service == key[0]]

    def changes(self, key: Key) -> list[bool]:
        """Whether a backend of a service went up (True) or down, in order."""
        found = [n for n in self.news if isinstance(n, HealthChange)]
        return [n.event is Event.CHECK_PASSED for n in found if (n.service, n.backend) == key]

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


@pytest.fixture(scope="module")
def network(sharing: Any) -> Topology:
    """Three backends, and the gateway's addresses at the balancer."""
    net: Topology = sharing(backends=3, gateways=True).net
    return net


@pytest.fixture
def net(network: Topology) -> Iterator[Topology]:
    """The network; afterwards no process of the test is left in it, and every cable is in."""
    yield network
    started = [pid for each in network.namespaces for pid in each.started()]
    end_processes(*(each.name for each in network.namespaces), started=started)
    for number in range(1, len(network.backends) + 1):
        network.switch.ip(f"link set backend{number} up")


@pytest.fixture
def checking(net: Topology) -> Iterator[Callable[[], Checking]]:
    """A factory of checkers in the balancer's namespace."""
    made: list[Checking] = []

    def make() -> Checking:
        made.append(Checking(net.balancer))
        return made[-1]

    yield make
    for checker in made:
        checker.end()


def targets(
    family: int, numbers: Sequence[int], service: str = "web", **check: Any
) -> list[Target]:
    """Backends of the topology, with a check or without; a busy machine has time to answer."""
    checked = Check(interval=0.2, **{"timeout": 30, **check}) if check else None
    addresses = [ipaddress.ip_address(backend_address(family, number)) for number in numbers]
    return [Target(service, str(address), address, 80, checked) for address in addresses]


def scope(**settings: Any) -> Scope:
    """The backends' networks of the topology, swept several times a second."""
    failover = Failover(**{"check_cycle": 0.2, "timeout": 2, "rise": 1, "fall": 2, **settings})
    network = ipaddress.ip_interface(f"{GATEWAY[4]}/{PRIVATE_PREFIX[4]}").network
    gateway = ipaddress.ip_address(GATEWAY[6])
    return Scope(failover, (network.broadcast_address,), interface="eth1", sources=(gateway,))


def answer_broadcasts(*backends: Namespace) -> None:
    """Answer broadcast pings, as loaded required of its backends, where the kernel does not."""
    for backend in backends:
        backend.sysctl(*HEARING)


def test_a_backend_falls_silent(net: Topology, serve: Any, checking: Any) -> None:
    """A backend whose cable is pulled goes down by every check, and comes up when it is back;
    others stay.
    """
    serve(net, udp=())
    checker = checking()
    kinds = [("icmp", 4), ("icmp", 6), ("tcp", 6), ("http", 4)]
    given: list[Target] = []
    for kind, family in kinds:
        service = f"{kind}{family}"
        # A busy machine answers in time, and may lose a ping.
        given += targets(family, (1,), service, type=kind, timeout=4, fall=2)
        given += targets(family, (2,), service, type=kind)
    checker.order(given)
    silent, others = given[::2], given[1::2]
    checker.until(lambda: all(len(checker.of(target.key)) > 2 for target in given))
    assert checker.verdicts == []
    net.switch.ip("link set backend1 down")
    checker.until(lambda: all(checker.changes(target.key) == [False] for target in silent))
    for target in silent:
        detail = next(r.detail for r in reversed(checker.of(target.key)) if not r.passed)
        assert "timed out after 4 s" in detail or "no route to host" in detail
    net.switch.ip("link set backend1 up")
    checker.until(lambda: all(checker.changes(target.key) == [False, True] for target in silent))
    assert not any(checker.changes(target.key) for target in others)


def test_a_service_ends(net: Topology, serve: Any, checking: Any) -> None:
    """If the host is up and the service is not, its connections are refused."""
    serve(net, udp=())
    checker = checking()
    given = [
        target
        for family in FAMILIES
        for target in targets(family, (1,), type="http", expect={"body": "backend1"})
    ]
    checker.order(given)
    names = [target.backend for target in given]
    checker.until(lambda: all(len(checker.reports(name)) > 2 for name in names))
    assert [checker.reports(name)[-1].detail for name in names] == ["status 200"] * 2
    kill(net, 1)
    checker.until(lambda: sorted(checker.verdicts) == sorted((name, False) for name in names))
    details = [checker.reports(name)[-1].detail for name in names]
    assert details == ["connect: connection refused"] * 2


def test_a_name_server(net: Topology, checking: Any) -> None:
    """dnsmasq answers a query over UDP and TCP as expected, another record fails; a port that is
    closed refuses both: by ICMP, and by RST.
    """
    start_dnsmasq(net.backends[0], "backend1")
    checker = checking()
    asked = {"name": "who.test", "query": "TXT"}
    given = [
        target._replace(port=53)
        for family in FAMILIES
        for transport in ("udp", "tcp")
        for wanted in ("backend1", "other")
        for target in targets(
            family,
            (1,),
            f"{transport} {wanted}",
            type="dns",
            parameters={**asked, "transport": transport, "answer": wanted},
        )
    ]
    checker.order(given)
    checker.until(lambda: all(len(checker.of(target.key)) > 2 for target in given))
    for target in given:
        codes = {report.code for report in checker.of(target.key)}
        assert codes == {Code.L7OK if target.service.endswith("backend1") else Code.L7RSP}
    kill(net, 1)
    for target in given:
        checker.until(lambda key=target.key: checker.of(key)[-1].code is Code.L4CON)
        assert checker.of(target.key)[-1].detail.endswith(": connection refused")


def test_failover_finds_servers(net: Topology, checking: Any) -> None:
    """Of hosts that answer a ping of the network, those that serve join, and leave when they fail.
    Hosts that do not serve never join, and neither does the balancer, which serves on all its
    addresses: the gateway, its own, a VIP on the private side.
    """
    answer_broadcasts(net.balancer, *net.backends)
    for family in FAMILIES:
        net.balancer.ip(f"address add {VIP[family]}/{HOST[family]} dev eth1")
    start_backend(net.balancer, "ours", http=(80,), udp=())
    start_backend(net.backends[0], "backend1", http=(80,), udp=())
    start_backend(net.backends[1], "backend2", http=(81,), udp=())
    checker = checking()
    checker.order([], scope())
    first = {backend_address(family, 1) for family in FAMILIES}
    joined, left = ({(address, up) for address in first} for up in (True, False))
    checker.until(lambda: set(checker.found) == joined)
    net.switch.ip("link set backend1 down")
    checker.until(lambda: set(checker.found) == joined | left)
    for address in first:  # each change is reported once; on a busy machine there may be more
        ups = [up for found, up in checker.found if found == address]
        assert ups == [n % 2 == 0 for n in range(len(ups))]
    for family in FAMILIES:
        net.balancer.ip(f"address del {VIP[family]}/{HOST[family][:3]} dev eth1")


def test_failover_of_the_listed(net: Topology, checking: Any) -> None:
    """Hosts that ignore broadcast pings are pinged individually; failed ones
    go down, and return.
    """
    net.backends[0].sysctl(*DEAF)
    answer_broadcasts(*net.backends[1:])
    for number, port in enumerate((80, 81, 80)):
        start_backend(net.backends[number], f"backend{number + 1}", http=(port,), udp=())
    checker = checking()
    given = [target for family in FAMILIES for target in targets(family, (1, 2))]
    checker.order(given, scope(discover=False))
    deaf, closed = ([backend_address(f, number) for f in FAMILIES] for number in (1, 2))

    def verdicts(names: Sequence[str], *ups: bool) -> Callable[[], bool]:
        """Whether exactly this has happened to each of ``names``."""
        return lambda: all([u for b, u in checker.verdicts if b == n] == [*ups] for n in names)

    checker.until(verdicts(closed, False))
    start_backend(net.backends[1], "backend2", http=(80,), udp=())
    checker.until(verdicts(closed, False, True))
    net.switch.ip("link set backend1 down")
    checker.until(verdicts(deaf, False))
    net.switch.ip("link set backend1 up")
    checker.until(verdicts(deaf, False, True))
    checker.until(verdicts(closed, False, True))
    assert checker.found == []
