"""The kernel decides about new flows: they are counted and shared as if a worker had decided, also
while backends and daemon come and go.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, answers_held, name_of, opened
from clients import Client
from failing import Load, control, rows, tries
from inside import run_inside
from processes import workers
from services import http_service
from waiting import runs, wait_until

from paraglider.cli.main import main
from paraglider.config.deciding import NO_ROOM
from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
#: the port of the service with a strategy
PORTS = {"rr": 81, "wrr": 82, "weighted": 83, "source": 84, "maglev": 85}
COUNT = 60  # connections by each


@pytest.fixture
def carrier() -> str:
    """BPF carries in all tests of this file."""
    return "bpf"


@pytest.fixture
def service(service: Any) -> Any:
    """The kernel decides, unless a test says otherwise."""
    return partial(service, decide="auto")


def conns(running: LabBalancer, family: int, name: str = "web") -> dict[str, int]:
    """The connections of each backend of a service, as the balancer has counted them."""
    return {backend: row["conns"] for backend, row in rows(running, family, name).items()}


def names(family: int, *numbers: int) -> list[str]:
    """Addresses of backends."""
    return [backend_address(family, number) for number in numbers]


def decided(running: LabBalancer) -> list[str]:
    """What decides about the flows of each service."""
    return [row["decided_by"] for row in control(running).get("services")]


@pytest.fixture(scope="module")
def world(sharing: Any) -> tuple[Topology, LabBalancer, Carried]:
    """A balancer with two workers, and a service of each strategy and family, whose backends have
    the weights 1, 2 and 3, which `rr` ignores.
    """
    services = [
        http_service(
            family,
            name=f"{strategy}{family}",
            ports=port,
            strategy=strategy,
            backends=[
                {"address": backend_address(family, n), "weight": 1 if strategy == "rr" else n}
                for n in (1, 2, 3)
            ],
            carrier="bpf",
            decide="auto",
        )
        for strategy, port in PORTS.items()
        for family in FAMILIES
    ]
    shared = sharing()
    for number, backend in enumerate(shared.net.backends, 1):
        start_backend(backend, f"backend{number}", http=list(PORTS.values()))
    running = shared.balancer(shared.config(*services, workers=2))
    carried = Carried(running)
    carried.decide(len(services))
    return shared.net, running, carried


@pytest.mark.parametrize("strategy", PORTS)
def test_every_connection_is_counted_once(
    world: tuple[Topology, LabBalancer, Carried], ask: Any, strategy: str
) -> None:
    """By whichever strategy: as many as the client has opened, at the backend that answered, with
    shares by weight; the worker sees none of their packets but what TCP ends with.
    """
    net, running, carried = world

    def opened_by(family: int) -> int:
        return sum(conns(running, family, strategy).values())

    for family in FAMILIES:
        end = VIP[family], PORTS[strategy]

        def live(family: int = family) -> int:
            return sum(row["flows"] for row in rows(running, family, strategy).values())

        with carried.counting("opened", COUNT):
            if strategy == "weighted":
                # The worker may hear late that a connection has ended, or of a new one.
                answers = answers_held(
                    net, "tcp", end, [12] * (COUNT // 12), partial(opened_by, family)
                )
                assert sorted(answers.values()) == pytest.approx([10, 20, 30], abs=3)
            else:
                answers = ask(net, "tcp", *end, COUNT)
        if strategy == "wrr":
            assert sorted(answers.values()) == pytest.approx([10, 20, 30], abs=2)
        elif strategy == "rr":
            assert set(answers.values()) == {20}
        elif strategy == "source":
            assert len(answers) == 1
        elif strategy == "maglev":
            assert len(answers) > 1
        wanted = {backend_address(family, n): answers[f"backend{n}"] for n in (1, 2, 3)}
        carried.until(
            lambda f=family, w=wanted: conns(running, f, strategy) == w,
            f"{wanted}, {conns(running, family, strategy)}",
        )
        carried.until(lambda live=live: not live(), "no live flow")


def test_a_flow_is_listed(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """While it lasts, with its packets, and logged by `-D`; another service is decided by a worker,
    and the log says why.
    """
    net = topology()
    serve_peer(net, 9000)
    own = service(4, name="own", ports=9001, decide="python")
    running = balancer(net, config(*(service(f, ports=9000) for f in FAMILIES), own), "-D")
    assert decided(running) == ["kernel", "kernel", "python"]
    assert 'event="flows decided" by=python why="`decide: python`" services=own' in running.log()
    Carried(running).decide(2)
    for family in FAMILIES:
        one = Client(net.client, tmp_path / f"{family}", "rounds", VIP[family], 9000, 1000)
        wait_until(lambda one=one: len(one.lines()) > 2, running.log)

        def listed(family: int = family) -> list[dict[str, Any]]:
            flows = control(running).get("flows")["flows"]
            return [flow for flow in flows if flow["service"] == f"web{family}"]

        def in_use(listed: Any = listed) -> dict[str, Any] | None:
            """The flow, when the worker has heard of the connection."""
            (flow,) = listed() or [{"state": ""}]
            return flow if flow["state"] == "established" and flow["packets_in"] > 2 else None

        flow = wait_until(in_use, running.log)
        assert flow is not None
        assert flow["carrier"] == "bpf"
        wait_until(lambda f=family, b=flow["backend"]: conns(running, f)[b] == 1, running.log)

        def opened_lines(family: int = family) -> list[str]:
            lines = running.log().splitlines()
            return [x for x in lines if f"service=web{family}" in x and 'event="new flow"' in x]

        wait_until(opened_lines, running.log)
        (line,) = opened_lines()
        assert f"backend={flow['backend']} " in f"{line} "
        assert 'why="rr, by the kernel"' in line
        assert '"rounds"' in one.end()
        wait_until(lambda: [flow["state"] for flow in listed()] == ["time-wait"], running.log)


def asked(net: Topology, family: int, port: int, to: int) -> str:
    """The name of the backend that answers the client from ``port`` at the VIP's port ``to``."""
    with opened(net.client, family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((net.client_address(family), port))
        one.connect((VIP[family], to))
        return name_of(one)


def test_all_machines_pick_the_same(
    topology: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Two with the same file have the same backend for a flow, by `source` and by `maglev`, and
    `explain` names it, without a daemon.
    """
    plans = [
        service(f, name=f"{name}{f}", ports=PORTS[name], strategy=name, seed=7, weights=(1, 2, 4))
        for f in FAMILIES
        for name in ("source", "maglev")
    ]
    flows = [
        (f, port, plan["ports"])
        for f, plan in zip((4, 4, 6, 6), plans, strict=True)
        for port in range(40000, 40010)
    ]
    found = []
    for machine in range(2):
        net = topology()
        for number, backend in enumerate(net.backends, 1):
            start_backend(backend, f"backend{number}", http=list(PORTS.values()), udp=())
        running = balancer(net, config(*plans).replace("control.sock", f"{machine}.sock"))
        carried = Carried(running)
        carried.decide(len(plans))
        with carried.counting("opened", len(flows)):
            found.append({flow: asked(net, *flow) for flow in flows})
    assert found[0] == found[1]
    file = tmp_path / "explained.conf"
    file.write_text(config(*plans).replace("control.sock", "none.sock"))
    for (family, port, to), name in found[0].items():
        address = net.client_address(family)
        ends = [f"[{end}]" if family == 6 else end for end in (address, VIP[family])]
        words = ["explain", "--json", "-c", str(file)]
        words += ["tcp", f"{ends[0]}:{port}", f"{ends[1]}:{to}"]
        told = run_inside(net.client, main, "paraglider", words, check=True)
        (flow,) = json.loads(told.stdout)["flows"]
        numbers = {backend_address(family, n): f"backend{n}" for n in (1, 2, 3)}
        assert numbers[flow["backend"]] == name


def test_backends_come_and_go_under_load(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Drained, in maintenance, with another weight, or gone from the file: no connection fails, and
    new ones go where they may.
    """
    net = topology()
    serve(net, udp=())
    plan = service(4, ports=80, strategy="wrr", weights=(1, 1, 1))
    running = balancer(net, config(plan))
    load = Load(net, 4, tmp_path / "load")
    daemon = control(running)
    first, second, third = names(4, 1, 2, 3)
    carried = Carried(running)
    assert len(set(load.more(30))) == 3

    def until_only(count: int) -> None:
        """The next answers are of ``count`` backends."""
        carried.until(lambda: len(set(load.more(12))) == count, str(load.answers()[-12:]))

    for state, count in (("drain", 2), ("ready", 3), ("maint", 2), ("ready", 3)):
        daemon.set_backend("web4", first, state=state)
        until_only(count)
    daemon.set_backend("web4", second, weight=0)
    until_only(2)
    daemon.set_backend("web4", second, weight=4)
    until_only(3)
    running.config.write_text(config({**plan, "backends": [first, third]}))
    daemon.post("reload", {})
    until_only(2)
    running.config.write_text(config({**plan, "decide": "python"}))
    daemon.post("reload", {})
    assert decided(running) == ["python"]
    with carried.counting("syn", 12):
        until_only(3)
    load.stop()
    assert not [answer for answer in load.answers() if answer.startswith("error")]


def test_a_lost_backend_is_passed_over(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """No connection goes to one that fails its checks; without any they are refused at once."""
    net = topology()
    serve(net, udp=())
    check = {"type": "tcp", "interval": 1, "timeout": 20, "rise": 1, "fall": 1}
    running = balancer(net, config(service(4, ports=80, check=check)))

    def answers() -> tuple[int, bool]:
        """How many backends answer twelve connections, and whether one of these failed."""
        found = set(tries(net, 4, 12))
        errors = {answer for answer in found if answer.startswith("error")}
        return len(found - errors), bool(errors)

    assert answers() == (3, False)
    refuse = "iptables -A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset"
    for number, backend in enumerate(net.backends, 1):
        backend.run(refuse.split())
        # The worker has the state, and the program the table, some moments after the check.
        expected = (3 - number, number == 3)
        wait_until(lambda expected=expected: answers() == expected, running.log)


def test_the_kernel_goes_on_without_a_daemon(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, tmp_path: Path
) -> None:
    """Killed workers, a killed daemon, one that was stopped: new connections succeed meanwhile, and
    the next daemon counts and lists those that live.
    """
    net = topology()
    serve(net, http=(80, 81, 82), udp=())
    # Each time it is away another service of IPv6 has its connections: the next daemon counts those
    # whose entries it finds, and may find some of the time before.
    away = {signal.SIGKILL: 81, signal.SIGTERM: 82}
    services = [service(4, ports=80), *(service(6, name=f"p{p}-6", ports=p) for p in away.values())]
    running = balancer(net, config(*services, workers=2), trouble=True)
    load = Load(net, 4, tmp_path / "load")
    load.more(10)
    for pid in workers(running):
        os.kill(pid, signal.SIGKILL)
    load.more(30)
    wait_until(lambda: running.log().count('event="worker ready"') >= 4, running.log)
    for how, port in away.items():
        serving = workers(running)
        running.stop(how)
        wait_until(lambda pids=serving: not any(map(runs, pids)))  # none hears of the next ones
        assert ask(net, "tcp", VIP[4], 80, 9).total() == 9  # in turn with those of the load
        assert len(ask(net, "tcp", VIP[6], port, 9)) == 3
        load.more(30)
        running.start()
        load.more(10)

        def counted(name: str = f"p{port}-") -> bool:
            return sum(conns(running, 6, name).values()) == 9

        wait_until(counted, running.log)
    load.stop()
    assert not [answer for answer in load.answers() if answer.startswith("error")]


def test_switched_off_and_removed(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, tmp_path: Path
) -> None:
    """`carrier off`: the workers decide, under load without an error; a service that a reload
    removes is decided no more.
    """
    net = topology()
    serve(net, udp=())
    services = [service(family, ports=80) for family in FAMILIES]
    running = balancer(net, config(*services))
    carried = Carried(running)
    load = Load(net, 4, tmp_path / "load")
    for state in ("off", "on", "off", "on"):
        control(running).post("carrier", {"state": state})
        assert decided(running) == ["kernel" if state == "on" else "python"] * 2
        carried.decide(2 if state == "on" else 0)
        before = carried.counted("opened")
        load.more(10)
        assert (carried.counted("opened") > before) == (state == "on")
    load.stop()
    assert not [answer for answer in load.answers() if answer.startswith("error")]
    running.config.write_text(config(services[0]))
    control(running).post("reload", {})
    wait_until(lambda: len(decided(running)) == 1, running.log)
    carried.decide(1)
    before = carried.counted("opened")
    done = net.client.run(
        [sys.executable, "-m", "paraglider.lab.client", "tcp", VIP[6], "80", "1"], timeout=60
    )
    assert "answer" not in done.stdout
    assert carried.counted("opened") == before
    assert ask(net, "tcp", VIP[4], 80, 3).total() == 3


def test_without_room_for_a_table_a_worker_decides(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """About one of the services, whose name the daemon has in its health and its log; when another
    is gone, the kernel decides about all.
    """
    net = topology()
    serve(net, http=(80, 81, 82, 83), udp=())
    large = {"strategy": "maglev", "strategy_parameters": {"table_size": 655_373}}
    services = [service(4, name=f"s{n}", ports=80 + n, **large) for n in range(4)]
    running = balancer(net, config(*services))
    daemon = control(running)
    wait_until(lambda: sorted(decided(running)) == ["kernel"] * 3 + ["python"], running.log)
    (lacking,) = [row for row in daemon.get("services") if row["why_python"]]
    assert lacking["why_python"] == NO_ROOM
    assert daemon.get("carrier")["services"][int(lacking["service"][1:])]["why_python"] == NO_ROOM
    line = f"service {lacking['service']}: {NO_ROOM}, so a worker decides about its flows"
    # On a busy machine there may be others.
    assert any(problem.startswith(line) for problem in daemon.get("health")["problems"])
    wait_until(lambda: line in running.log(), running.log)
    assert len(ask(net, "tcp", VIP[4], int(lacking["ports"]), 30)) == 3
    kept = [plan for plan in services if plan["name"] in ("s0", lacking["service"])]
    running.config.write_text(config(*kept))
    daemon.post("reload", {})
    wait_until(lambda: decided(running) == ["kernel"] * len(kept), running.log)
    wait_until(lambda: daemon.get("health")["healthy"], running.log)
