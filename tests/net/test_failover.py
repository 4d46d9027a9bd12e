"""Backends that fail and return under load: checks, failover, and the effects on flows."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from directing import directed
from failing import (
    Load,
    Peer,
    await_gone,
    await_state,
    control,
    freeze,
    kill,
    revive,
    rows,
    tries,
)
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.namespace import end_processes
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

#: of servers that refuse when they fail: a busy machine has time to answer
CHECK = {"type": "tcp", "port": 80, "interval": 0.2, "timeout": 20, "rise": 2, "fall": 2}
#: of hosts that fall silent: each failed check takes the timeout
SILENT = {**CHECK, "timeout": 3}
ROUNDS = {"check_cycle": 0.3, "timeout": 3, "rise": 1, "fall": 2}
NAMES = {"backend1", "backend2", "backend3"}
FAMILIES = (4, 6)
#: bytes of a download whose second half does not fit into the buffers of the kernel
LONG = 28_000_000


#: the services of most tests: name, port, forward method and carrier
NAT, OFFLOAD = ("web", 80, "nat", "bpf"), ("bulk", 81, "offload", "")
BOTH = (NAT, OFFLOAD)
PORTS = (80, 81, 82)

Kind = tuple[str, Any, str, str]


@pytest.fixture(scope="module")
def network(sharing: Any) -> Topology:
    """Four backends, of which services have three."""
    net: Topology = sharing(backends=4).net
    return net


@pytest.fixture
def net(network: Topology) -> Iterator[Topology]:
    """The network; afterwards no process and no connection of the test is left in it, and every
    cable is in.
    """
    yield network
    started = [pid for each in network.namespaces for pid in each.started()]
    end_processes(*(each.name for each in network.namespaces), started=started)
    for number in range(1, len(network.backends) + 1):
        freeze(network, number, up=True)
    network.balancer.run(["conntrack", "-F"])


@pytest.fixture
def made(service: Any) -> Callable[..., list[dict[str, Any]]]:
    """A function that makes a service of each family of each kind."""

    def make(*kinds: Kind, **changes: Any) -> list[dict[str, Any]]:
        return [
            service(family, name=f"{name}{family}", ports=port, forward=forward, **chosen)
            for name, port, forward, carrier in kinds
            for family in FAMILIES
            for chosen in [{**({"carrier": carrier} if carrier else {}), **changes}]
        ]

    return make


@pytest.fixture
def web(
    net: Topology, serve: Any, config: Any, made: Any, balancer: Any
) -> Callable[..., LabBalancer]:
    """A function that has services of these kinds balanced over three backends."""

    def start(
        *kinds: Kind,
        options: tuple[str, ...] = (),
        top: dict[str, Any] | None = None,
        **changes: Any,
    ) -> LabBalancer:
        serve(net, http=PORTS, udp=())
        running: LabBalancer = balancer(
            net, config(*made(*kinds, **changes), **(top or {})), *options
        )
        return running

    return start


@pytest.fixture
def load(net: Topology, tmp_path: Path) -> Iterator[Callable[..., list[Load]]]:
    """A function that has the client open connections to ports, of each family, until the end."""
    begun: list[Load] = []

    def start(*ports: int) -> list[Load]:
        begun.extend(
            Load(net, family, tmp_path / f"load{port}-{family}", port)
            for port in ports
            for family in FAMILIES
        )
        return begun

    yield start
    for each in begun:
        each.stop()


def answers(clients: Sequence[Load], count: int = 20) -> set[str]:
    """The results of the next ``count`` connections of all clients, the same for each."""
    found = [frozenset(each.more(count)) for each in clients]
    assert len(set(found)) == 1, found
    return set(found[0])


def wrk(net: Topology, family: int, port: int, seconds: int) -> subprocess.Popen[bytes]:
    """Four clients that open a connection for every request."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--timeout", "30s", "-H", "Connection: close"]
    return net.client.popen([*command, f"http://{host}:{port}/"], stdout=subprocess.PIPE)


def test_out_and_back_under_load(net: Topology, web: Any, load: Any) -> None:
    """A backend whose host or server fails under load is taken out: later connections see no error;
    and it returns.
    """
    running = web(*BOTH, check=SILENT)
    names = ("web", "bulk")
    clients = load(80, 81)
    places = [(family, port) for port in (80, 81) for family in FAMILIES]
    assert answers(clients) == NAMES
    for number, how in ((3, "kill"), (2, "cable")):
        crowd = [wrk(net, *place, 60) for place in places if how == "kill"]
        if how == "cable":
            freeze(net, number, up=False)
        else:
            kill(net, number)
        await_state(running, "down", number, names=names)
        for each in crowd:
            each.kill()
        later = [wrk(net, *place, 1) for place in places]
        assert answers(clients) == NAMES - {f"backend{number}"}
        for each in later:
            said = each.communicate(timeout=TIMEOUT)[0].decode()
            assert "Requests/sec" in said
            assert "errors" not in said
        for family in FAMILIES:
            for name in names:
                row = rows(running, family, name)[backend_address(family, number)]
                assert row["check"]["passed"] is False
                assert row["why"] != "configured"
        if how == "cable":
            freeze(net, number, up=True)
        else:
            revive(net, number, http=PORTS)
        await_state(running, "ready", number, names=names)
        assert answers(clients) == NAMES


def test_connections_of_the_dead(
    net: Topology,
    serve: Any,
    serve_peer: Any,
    config: Any,
    made: Any,
    balancer: Any,
    tmp_path: Path,
) -> None:
    """An idle connection to a backend that goes down is reset at its next packet or, if configured
    to be kept, continues when the backend is back; others are not affected.
    """
    kept = (("web", 9000, "nat", "worker"), ("kept", 9001, "nat", "bpf"))
    reset = (("ended", 9002, "nat", "bpf"), ("bulk", 9003, "offload", ""))
    check = {**SILENT, "port": 80}
    serve(net, udp=())
    for _, port, _, _ in (*kept, *reset):
        serve_peer(net, port)
    services = [
        *made(*kept, check=check, on_down="keep"),
        *made(*reset, check=check, on_down="reset"),
    ]
    running = balancer(net, config(*services))
    names = tuple(kind[0] for kind in (*kept, *reset))
    idle = {
        kind[0]: [
            Peer(net.client, tmp_path / f"{kind[0]}{family}-{n}", "pause", VIP[family], kind[1])
            for family in FAMILIES
            for n in range(3)
        ]
        for kind in (*kept, *reset)
    }
    assert all(each.begun() for name in names for each in idle[name])
    freeze(net, 2, up=False)
    await_state(running, "down", 2, names=names)
    well, lost = "{'arrived': 3}", "{'error': 'ECONNRESET'}"
    for name, *_ in reset:
        assert sorted(str(each.end()) for each in idle[name]) == [well] * 4 + [lost] * 2, name
    freeze(net, 2, up=True)
    await_state(running, "ready", 2, names=names)
    for name, *_ in kept:
        assert [str(each.end()) for each in idle[name]] == [well] * 6, name


def test_clients_are_a_hint(net: Topology, web: Any, load: Any) -> None:
    """Refused or, with the kernel's forwarding too, unanswered connections cause a check long
    before it is due.
    """
    running = web(*BOTH, check={**SILENT, "interval": 3600})
    load(80, 81)
    kill(net, 2)
    freeze(net, 3, up=False)
    await_state(running, "down", 2, names=("web",))
    await_state(running, "down", 3, names=("web", "bulk"))


def test_drain(net: Topology, web: Any, serve_peer: Any, tmp_path: Path) -> None:
    """A long download goes on to its end while its backend drains; new connections go elsewhere,
    until it is ready again.
    """
    kinds: tuple[Kind, ...] = (
        ("web", [80, 9000], "nat", "worker"),
        ("fast", [81, 9001], "nat", "bpf"),
        ("bulk", [82, 9002], "offload", ""),
    )
    running = web(*kinds)
    for _, (_, port), _, _ in kinds:
        serve_peer(net, port)
    for (name, (http, port), _, _), family in itertools.product(kinds, FAMILIES):
        output = tmp_path / f"{name}{family}"
        long = Peer(net.client, output, "halves", VIP[family], port, LONG)
        assert long.begun()
        number = serving(net, family, port)
        backend = backend_address(family, number)
        control(running).set_backend(f"{name}{family}", backend, state="drain")
        assert set(tries(net, family, 20, http)) == NAMES - {f"backend{number}"}
        assert serving(net, family, port) == number
        done = long.end()
        assert done["sent"] == done["arrived"]
        control(running).set_backend(f"{name}{family}", backend, state="ready")
        assert set(tries(net, family, 20, http)) == NAMES


def test_a_drain_that_takes_too_long(
    net: Topology, web: Any, serve_peer: Any, tmp_path: Path
) -> None:
    """After `drain_timeout` a connection that goes on and on is reset."""
    running = web(("web", 9000, "offload", ""), drain_timeout=1)
    serve_peer(net, 9000)
    endless = [
        Peer(net.client, tmp_path / f"endless{family}", "rounds", VIP[family], 9000, 1000)
        for family in FAMILIES
    ]
    assert all(each.begun() for each in endless)
    for family in FAMILIES:
        name = backend_address(family, serving(net, family, 9000))
        control(running).set_backend(f"web{family}", name, state="drain")
    for each in endless:
        wait_until(lambda each=each: isinstance(each.lines()[-1], dict), running.log)
        assert each.lines()[-1] == {"error": "ECONNRESET"}


def serving(net: Topology, family: int, port: int) -> int:
    """The number of the one backend that has a connection to ``port``."""
    found = []
    for number, backend in enumerate(net.backends, 1):
        command = ["ss", "-Htn", "state", "established", f"( sport = :{port} )"]
        if backend_address(family, number) in backend.run(command).stdout:
            found.append(number)
    assert len(found) == 1, found
    return found[0]


def test_failover(net: Topology, web: Any, load: Any) -> None:
    """With `-f` backends without a check leave and return by failover's sweeps."""
    running = web(NAT, options=("-f",), top={"failover": {**ROUNDS, "discover": False}})
    clients = load(80)
    assert answers(clients) == NAMES
    freeze(net, 1, up=False)
    await_state(running, "down", 1)
    assert answers(clients) == NAMES - {"backend1"}
    freeze(net, 1, up=True)
    await_state(running, "ready", 1)
    assert answers(clients) == NAMES


def test_a_host_joins(net: Topology, config: Any, made: Any, balancer: Any, load: Any) -> None:
    """With `-f` a host that is not listed joins when it answers and serves, leaves when it fails,
    and joins again; the balancer never joins, though it answers on all its addresses.
    """
    for number in (1, 2, 3):
        revive(net, number, http=PORTS)
    start_backend(net.balancer, "ours", http=PORTS, udp=())
    kinds = (*BOTH, ("plain", 82, "nat", "worker"))
    names = tuple(kind[0] for kind in kinds)
    running = balancer(net, config(*made(*kinds), failover=ROUNDS), "-f")
    for each in (net.balancer, *net.backends):
        each.sysctl("net.ipv4.icmp_echo_ignore_broadcasts=0")
    clients = load(*PORTS)
    assert answers(clients) == NAMES
    for _ in range(2):
        revive(net, 4, http=PORTS)
        await_state(running, "ready", 4, names=names)
        assert answers(clients) == NAMES | {"backend4"}
        kill(net, 4)
        await_gone(running, 4, names)
        assert answers(clients) == NAMES


@pytest.mark.parametrize(
    "kinds",
    [
        (("nat", "worker"), ("nat", "bpf"), ("offload", "")),
        (("dsr", "worker"), ("dsr", "bpf")),
    ],
)
def test_all_down_rejects(
    net: Topology, topology: Any, config: Any, made: Any, balancer: Any, peer: Any, kinds: Any
) -> None:
    """If all are down, connections and datagrams are refused at once, and
    served when one is back.
    """
    dsr = kinds[0][0] == "dsr"
    net = directed(topology) if dsr else net  # before `balancer`, which is stopped first
    http, udp = range(80, 80 + len(kinds)), range(5353, 5353 + len(kinds))
    for number in (1, 2, 3):
        revive(net, number, http, udp)
    web = [("web" if n == 0 else f"web{n}-", http[n], *kind) for n, kind in enumerate(kinds)]
    echo = [(f"echo{n}-", udp[n], *kind) for n, kind in enumerate(kinds)]
    services = [*made(*web, check=CHECK), *made(*echo, check=CHECK, protocol="udp")]
    names = tuple(kind[0] for kind in (*web, *echo))
    running = balancer(net, config(*services))
    for number in (1, 2, 3):
        kill(net, number)
    await_state(running, "down", 1, 2, 3, names=names)
    for family, n in itertools.product(FAMILIES, range(len(kinds))):
        assert all("Connection refused" in answer for answer in tries(net, family, 5, http[n]))
        asked = peer(net.client, "udp", VIP[family], udp[n], 9)
        assert asked == {"error": "ECONNREFUSED"}
    revive(net, 3, http, udp)
    await_state(running, "ready", 3, names=names)
    for family, n in itertools.product(FAMILIES, range(len(kinds))):
        assert tries(net, family, 3, http[n]) == ["backend3"] * 3
        assert peer(net.client, "udp", VIP[family], udp[n], 9)["answer"] == "backend3"


def test_all_down_uses_all(net: Topology, web: Any) -> None:
    """With `use_all` a check that fails for all backends takes none out."""
    wrong = {**CHECK, "type": "http", "path": "/nosuch"}
    running = web(("web", 80, "offload", ""), check=wrong, all_down="use_all")
    await_state(running, "down", 1, 2, 3)
    assert [set(tries(net, family, 9)) for family in FAMILIES] == [NAMES] * 2
