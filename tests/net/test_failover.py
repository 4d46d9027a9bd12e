"""Backends that fail and return under load: checks, failover, and the effects on flows."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from carrying import forwards
from directing import directed
from failing import (
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
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

#: of servers that refuse when they fail: a busy machine has time to answer
CHECK = {"type": "tcp", "port": 80, "interval": 0.2, "timeout": 20, "rise": 2, "fall": 2}
#: of hosts that fall silent: each failed check takes the timeout
SILENT = {**CHECK, "timeout": 3}
ROUNDS = {"check_cycle": 0.3, "timeout": 3, "rise": 1, "fall": 2}
NAMES = {"backend1", "backend2", "backend3"}
FAMILIES = (4, 6)


@pytest.fixture
def web(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> Callable[..., tuple[Topology, LabBalancer]]:
    """A function that has a service of each family balanced over three backends."""

    def start(
        *options: str, top: dict[str, Any] | None = None, **changes: Any
    ) -> tuple[Topology, LabBalancer]:
        net = topology()
        serve(net, udp=())
        services = [service(family, **{"ports": 80, **changes}) for family in FAMILIES]
        return net, balancer(net, config(*services, **(top or {})), *options)

    return start


def wrk(net: Topology, family: int, seconds: int) -> subprocess.Popen[bytes]:
    """Four clients that open a connection for every request."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--timeout", "30s", "-H", "Connection: close"]
    return net.client.popen([*command, f"http://{host}/"], stdout=subprocess.PIPE)


@pytest.mark.parametrize(("forward", "how"), [("nat", "cable"), ("offload", "kill")])
def test_out_and_back_under_load(web: Any, load: Any, forward: str, how: str) -> None:
    """A backend whose host or server fails under load is taken out: later connections see no error;
    and it returns.
    """
    net, running = web(forward=forward, check=SILENT if how == "cable" else CHECK)
    clients = load(net)
    crowd = [wrk(net, family, 60) for family in FAMILIES]
    assert [set(each.more(20)) for each in clients] == [NAMES] * 2
    if how == "cable":
        freeze(net, 2, up=False)
    else:
        kill(net, 2)
    await_state(running, "down", 2)
    for each in crowd:
        each.kill()
    later = [wrk(net, family, 1) for family in FAMILIES]
    assert [set(each.more(30)) for each in clients] == [NAMES - {"backend2"}] * 2
    for each in later:
        said = each.communicate(timeout=TIMEOUT)[0].decode()
        assert "Requests/sec" in said
        assert "errors" not in said
    for family in FAMILIES:
        row = rows(running, family)[backend_address(family, 2)]
        assert row["check"]["passed"] is False
        assert row["why"] != "configured"
    if how == "cable":
        freeze(net, 2, up=True)
    else:
        revive(net, 2)
    await_state(running, "ready", 2)
    assert [set(each.more(30)) for each in clients] == [NAMES] * 2


@pytest.mark.parametrize(
    ("forward", "on_down", "carrier"),
    [
        ("nat", "keep", "worker"),
        ("nat", "keep", "bpf"),
        ("nat", "reset", "bpf"),
        ("offload", "reset", ""),
    ],
    indirect=["carrier"],
)
def test_connections_of_the_dead(
    web: Any, serve_peer: Any, tmp_path: Path, forward: str, on_down: str
) -> None:
    """An idle connection to a backend that goes down is reset at its next packet or, if configured
    to be kept, continues when the backend is back; others are not affected.
    """
    net, running = web(forward=forward, ports=[80, 9000], check=SILENT, on_down=on_down)
    serve_peer(net, 9000)
    idle = [
        Peer(net.client, tmp_path / f"idle{family}-{n}", "pause", VIP[family], 9000)
        for family in FAMILIES
        for n in range(3)
    ]
    assert all(each.begun() for each in idle)
    freeze(net, 2, up=False)
    await_state(running, "down", 2)
    if on_down == "keep":
        freeze(net, 2, up=True)
        await_state(running, "ready", 2)
    ended = [str(each.end()) for each in idle]
    lost = 2 if on_down == "reset" else 0
    assert sorted(ended) == ["{'arrived': 3}"] * (6 - lost) + ["{'error': 'ECONNRESET'}"] * lost


@pytest.mark.parametrize(("forward", "how"), [("nat", "kill"), ("offload", "cable")])
def test_clients_are_a_hint(web: Any, load: Any, forward: str, how: str) -> None:
    """Refused or unanswered connections cause a check long before it is due."""
    check = SILENT if how == "cable" else CHECK
    net, running = web(forward=forward, check={**check, "interval": 3600, "fall": 3})
    load(net)
    if how == "kill":
        kill(net, 2)
    else:
        freeze(net, 2, up=False)
    await_state(running, "down", 2)


@forwards("nat", "offload")
def test_drain(web: Any, load: Any, serve_peer: Any, tmp_path: Path, forward: str) -> None:
    """A long download goes on to its end while its backend drains; new connections go elsewhere,
    until it is ready again.
    """
    net, running = web(forward=forward, ports=[80, 9000])
    serve_peer(net, 9000)
    clients = load(net)
    for family, client in zip(FAMILIES, clients, strict=True):
        output = tmp_path / f"download{family}"
        long = Peer(net.client, output, "halves", VIP[family], 9000, 40_000_000)
        assert long.begun()
        number = serving(net, family, 9000)
        name = backend_address(family, number)
        control(running).set_backend(f"web{family}", name, state="drain")
        assert set(client.more(20)) == NAMES - {f"backend{number}"}
        assert serving(net, family, 9000) == number
        done = long.end()
        assert done["sent"] == done["arrived"]
        control(running).set_backend(f"web{family}", name, state="ready")
        assert set(client.more(20)) == NAMES


def test_a_drain_that_takes_too_long(web: Any, serve_peer: Any, tmp_path: Path) -> None:
    """After `drain_timeout` a connection that goes on and on is reset."""
    net, running = web(forward="offload", ports=[80, 9000], drain_timeout=1)
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


def test_failover(web: Any, load: Any) -> None:
    """With `-f` backends without a check leave and return by failover's sweeps."""
    net, running = web("-f", top={"failover": {**ROUNDS, "discover": False}})
    clients = load(net)
    assert [set(each.more(20)) for each in clients] == [NAMES] * 2
    freeze(net, 1, up=False)
    await_state(running, "down", 1)
    assert [set(each.more(30)) for each in clients] == [NAMES - {"backend1"}] * 2
    freeze(net, 1, up=True)
    await_state(running, "ready", 1)
    assert [set(each.more(30)) for each in clients] == [NAMES] * 2


@forwards("nat", "offload")
def test_a_host_joins(
    topology: Any, config: Any, service: Any, balancer: Any, load: Any, forward: str
) -> None:
    """With `-f` a host that is not listed joins when it answers and serves, leaves when it fails,
    and joins again; the balancer never joins, though it answers on all its addresses.
    """
    net = topology(backends=4)
    for number in (1, 2, 3):
        revive(net, number)
    start_backend(net.balancer, "ours", http=(80,), udp=())
    services = [service(family, ports=80, forward=forward) for family in FAMILIES]
    running = balancer(net, config(*services, failover=ROUNDS), "-f")
    for each in (net.balancer, *net.backends):
        each.sysctl("net.ipv4.icmp_echo_ignore_broadcasts=0")
    clients = load(net)
    assert [set(each.more(20)) for each in clients] == [NAMES] * 2
    for _ in range(2 if forward == "nat" else 1):  # the supervisor reverts it for every method
        revive(net, 4)
        await_state(running, "ready", 4)
        assert [set(each.more(30)) for each in clients] == [NAMES | {"backend4"}] * 2
        kill(net, 4)
        await_gone(running, 4)
        assert [set(each.more(30)) for each in clients] == [NAMES] * 2


@forwards("nat", "offload", "dsr")
def test_all_down_rejects(
    topology: Any, config: Any, service: Any, balancer: Any, peer: Any, forward: str
) -> None:
    """If all are down, connections and datagrams are refused at once, and
    served when one is back.
    """
    net = directed(topology) if forward == "dsr" else topology()
    for number in (1, 2, 3):
        revive(net, number)
    web = [service(f, ports=80, forward=forward, check=CHECK) for f in FAMILIES]
    changed = {"protocol": "udp", "ports": 5353}
    echo = [{**each, "name": f"echo{f}", **changed} for f, each in zip(FAMILIES, web, strict=True)]
    running = balancer(net, config(*web, *echo))
    for number in (1, 2, 3):
        kill(net, number)
    await_state(running, "down", 1, 2, 3, names=("web", "echo"))
    for family in FAMILIES:
        assert all("Connection refused" in answer for answer in tries(net, family, 5))
        asked = peer(net.client, "udp", VIP[family], 5353, 9)
        assert asked == {"error": "ECONNREFUSED"}
    revive(net, 3)
    await_state(running, "ready", 3, names=("web", "echo"))
    for family in FAMILIES:
        assert tries(net, family, 3) == ["backend3"] * 3
        assert peer(net.client, "udp", VIP[family], 5353, 9)["answer"] == "backend3"


def test_all_down_uses_all(web: Any) -> None:
    """With `use_all` a check that fails for all backends takes none out."""
    wrong = {**CHECK, "type": "http", "path": "/nosuch"}
    net, running = web(forward="offload", check=wrong, all_down="use_all")
    await_state(running, "down", 1, 2, 3)
    assert [set(tries(net, family, 9)) for family in FAMILIES] == [NAMES] * 2
