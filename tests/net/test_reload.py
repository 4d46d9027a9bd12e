"""Another file under load: backends, services and strategies change without an error."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from carrying import forwards
from directing import hold_vips
from failing import Peer, control, rows, tries
from processes import workers
from sharing import Shared
from waiting import TIMEOUT, wait_until

from paraglider.config.diagnostics import ConfigError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
ROUND = 5_000  # bytes


class World:
    """A balancer with a service of each family, and the files that it is given."""

    def __init__(self, net: Topology, running: LabBalancer, file: Callable[..., str]) -> None:
        self.net = net
        self.running = running
        self._file = file

    def write(self, *backends: int, weights: tuple[int, ...] = (), **changes: Any) -> None:
        """Write another file with these backends and changes."""
        self.running.config.write_text(self._file(backends, weights, **changes))

    def reload(self) -> dict[str, list[str]]:
        """Reload; returns the daemon's answer."""
        answer: dict[str, list[str]] = control(self.running).post("reload", {})
        return answer

    def names(self, *numbers: int) -> set[str]:
        """The names that these backends answer."""
        return {f"backend{number}" for number in numbers}


@pytest.fixture(scope="module")
def networks(sharing: Any) -> Callable[[str], Shared]:
    """A function that returns the network of all tests of a forward method, with its servers."""

    @functools.cache
    def make(direct: bool) -> Shared:
        made: Shared = sharing(direct=direct)
        if direct:
            hold_vips(made.net)
        made.serve(udp=())
        made.serve_peer(9000)
        return made

    return lambda forward: make(forward == "dsr")


@pytest.fixture
def world(networks: Callable[[str], Shared], service: Any) -> Callable[..., World]:
    """A function that makes a world with two backends of three."""

    def start(forward: str, **top: Any) -> World:
        shared = networks(forward)

        def file(
            backends: tuple[int, ...],
            weights: tuple[int, ...] = (),
            more: Any = (),
            watch: bool = False,
            **changes: Any,
        ) -> str:
            services = []
            for family in FAMILIES:
                made = service(family, forward=forward, **{"ports": [80, 9000], **changes})
                made["backends"] = [
                    {"address": backend_address(family, number), "weight": weight}
                    for number, weight in zip(backends, weights or (1, 1, 1), strict=False)
                ]
                services.append(made)
            return shared.config(*services, *more, workers=2, watch=watch, **top)

        running = shared.balancer(file((1, 2)), apart=True, trouble=True)
        return World(shared.net, running, file)

    return start


def transfers(net: Topology, directory: Path, *families: int) -> list[Peer]:
    """Connections that go on, two of each family."""
    made = [
        Peer(net.client, directory / f"long{family}-{n}", "rounds", VIP[family], 9000, ROUND)
        for family in families
        for n in range(2)
    ]
    assert all(one.begun() for one in made)
    return made


def wrk(net: Topology) -> subprocess.Popen[bytes]:
    """Clients that send request after request over the same connections."""
    command = ["wrk", "-t1", "-c16", "-d100s", "--timeout", "60s", f"http://{VIP[4]}/"]
    return net.client.popen(command, stdout=subprocess.PIPE)


@forwards("nat", "offload")
def test_under_load(world: Any, load: Any, service: Any, tmp_path: Path, forward: str) -> None:
    """A backend is added, another removed, strategy and weights change, a service is added and
    removed, an invalid file is refused: new connections follow the file, existing ones continue,
    and none is lost, nor any request.
    """
    it: World = world(forward)
    net, running = it.net, it.running
    long = transfers(net, tmp_path, *FAMILIES)
    crowd = wrk(net)
    clients = load(net)

    def answered(*numbers: int) -> None:
        assert [set(each.more(12)) for each in clients] == [it.names(*numbers)] * 2

    answered(1, 2)
    it.write(1, 2, 3)
    assert it.reload()["changed"] == [
        f"service web{family}: backend {backend_address(family, 3)} added" for family in FAMILIES
    ]
    answered(1, 2, 3)

    it.write(2, 3)
    assert "its flows live on" in it.reload()["changed"][0]
    answered(2, 3)
    row = rows(running, 4)[backend_address(4, 1)]
    assert (row["state"], row["weight"]) == ("drain", 0)

    it.write(2, 3, weights=(0, 5), strategy="wrr")
    assert len(it.reload()["changed"]) == 6
    answered(3)
    crowd.send_signal(signal.SIGINT)
    said = crowd.communicate(timeout=TIMEOUT)[0].decode()
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 0
    assert "errors" not in said
    assert "Non-2xx" not in said

    running.config.write_text(running.config.read_text().replace("strategy: wrr", "strategy: wr"))
    with pytest.raises(ConfigError, match=rf"^{running.config}:\d+:\d+: .*wr"):
        it.reload()
    answered(3)

    extra = service(4, name="extra", vip="192.168.0.12/24", ports=80, forward=forward, backends=1)
    it.write(2, 3, more=[extra])
    assert "service extra added, 1 backend" in it.reload()["changed"]
    answered(2, 3)
    address = "http://192.168.0.12/"
    found = net.client.run(["curl", "-s", "--max-time", "60", address], timeout=90).stdout
    assert found == "backend1\n"

    it.write(1, 2)
    os.kill(running.pid, signal.SIGHUP)
    wait_until(lambda: running.log().count("service extra removed") == 1, running.log)
    wait_until(lambda: len(rows(running, 4)) == 3, running.log)
    # Nobody says when the workers have it, as the command does.
    wait_until(lambda: all(set(each.more(12)) == it.names(1, 2) for each in clients), running.log)

    assert [one.end()["rounds"] > 0 for one in long] == [True] * 4
    assert not [a for each in clients for a in each.answers() if a.startswith("error")]


@pytest.mark.parametrize("forward", ["dsr", "proxy"])
def test_other_ways(world: Any, load: Any, tmp_path: Path, forward: str) -> None:
    """A backend comes, another goes, and the strategy is another: as above."""
    it: World = world(forward)
    long = transfers(it.net, tmp_path, *FAMILIES)
    clients = load(it.net)
    # By hash, twelve ports would find one backend of two alone once in two thousand times.
    changes = (((1, 2, 3), "rr", 12), ((2, 3), "maglev", 36), ((3,), "rr", 12))
    for backends, strategy, count in changes:
        it.write(*backends, strategy=strategy)
        assert it.reload()["restart"] == []
        assert [set(each.more(count)) for each in clients] == [it.names(*backends)] * 2
    assert [one.end()["rounds"] > 0 for one in long] == [True] * 4
    assert not [a for each in clients for a in each.answers() if a.startswith("error")]


def test_many_at_once(world: Any, tmp_path: Path) -> None:
    """No reload is lost, by signal, by command or by a changed file: the last file is applied,
    except for parts that need a restart, which are reported. Checks begin. Removed backends leave
    the table and the rules with their last flow, not before.
    """
    it: World = world("nat", timeouts={"closed": 1})
    idle = [Peer(it.net.client, tmp_path / f"idle{n}", "pause", VIP[4], 9000) for n in range(4)]
    assert all(one.begun() for one in idle)
    with ThreadPoolExecutor(8) as pool:
        for strategy in ("wrr", "maglev"):
            it.write(1, 2, 3, strategy=strategy)
            for _ in range(4):
                os.kill(it.running.pid, signal.SIGHUP)
            answers = list(pool.map(lambda _: it.reload(), range(8)))
            assert all(answer["restart"] == [] for answer in answers)
            found = {one["strategy"] for one in control(it.running).get("services")}
            assert found == {strategy}
    it.write(1, 2, 3, check={"type": "tcp", "port": 80, "interval": 0.5, "timeout": 20})
    assert it.reload()["restart"] == []
    wait_until(
        lambda: all(
            row["check"] and row["check"]["passed"] for row in rows(it.running, 4).values()
        ),
        it.running.log,
    )
    it.write(1, 2, 3, strategy="source", watch=True)
    it.reload()
    it.write(1, 2, 3, watch=True)
    wait_until(
        lambda: {one["strategy"] for one in control(it.running).get("services")} == {"rr"},
        it.running.log,
    )
    it.write(1, 2, 3)
    it.reload()  # nobody but the test has the next files applied
    it.write(2, 3)
    it.running.config.write_text(f"{it.running.config.read_text()}user: daemon\n")
    answer = it.reload()
    assert answer["restart"] == [
        "user: nobody → daemon takes a restart (processes are that user's)"
    ]
    assert len(answer["changed"]) == 2, answer
    assert set(tries(it.net, 4, 12)) == it.names(2, 3)
    first = backend_address(4, 1)
    assert first in rows(it.running, 4)
    assert first in it.net.balancer.run(["iptables-save"]).stdout
    assert [one.end() for one in idle] == [{"arrived": 3}] * 4
    wait_until(lambda: first not in rows(it.running, 4), it.running.log)
    wait_until(lambda: first not in it.net.balancer.run(["iptables-save"]).stdout, it.running.log)


@forwards("nat")
def test_while_workers_are_replaced(world: Any, tmp_path: Path, forward: str) -> None:
    """A reload is applied by workers that have just died, or are stopped and die later: the first
    new connection after its answer follows the file, and existing ones continue.
    """
    it: World = world(forward)
    long = transfers(it.net, tmp_path, *FAMILIES)
    for before, number in ((signal.SIGKILL, 3), (signal.SIGSTOP, 1)):
        wait_until(lambda: len(workers(it.running)) == 2, it.running.log)
        pids = workers(it.running)
        for pid in pids:
            os.kill(pid, before)
        it.write(2, number)
        assert it.reload()["restart"] == []
        if before is signal.SIGSTOP:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # the supervisor has ended it
                    os.kill(pid, signal.SIGKILL)
        assert set(tries(it.net, 4, 12)) == it.names(2, number)
    assert [one.end()["rounds"] > 0 for one in long] == [True] * 4


@forwards("nat", "offload", "dsr")
def test_a_service_is_known_by_what_it_serves(world: Any, tmp_path: Path, forward: str) -> None:
    """A range of ports, all and back, then fewer and another name at once: no connection that lives
    is lost, also where a backend leaves meanwhile, and at the next restart.
    """
    it: World = world(forward)
    long = transfers(it.net, tmp_path, *FAMILIES)

    def go_on() -> None:
        """Every connection goes on."""
        before = [len(one.lines()) for one in long]
        wait_until(
            lambda: all(len(one.lines()) > n + 1 for one, n in zip(long, before, strict=True)),
            lambda: f"{[one.lines()[-1:] for one in long]}\n{it.running.log()}",
        )

    for ports in ("9000-9010", "1-65535", [80, 9000]):
        it.write(1, 2, ports=ports)
        it.reload()
        go_on()
    it.write(2, ports=[9000])
    it.running.config.write_text(it.running.config.read_text().replace("name: web", "name: www"))
    said = it.reload()["changed"]
    assert "service web4 is called www4 now" in said
    assert [line for line in said if "removed" in line] == [
        f"service web{f}: backend {backend_address(f, 1)} removed, its flows live on"
        for f in FAMILIES
    ]
    go_on()
    assert it.running.stop() == 0
    it.write(1, 2, ports=[80, 9000])
    it.running.start()
    go_on()
    assert [one.end()["rounds"] > 0 for one in long] == [True] * 4


@pytest.mark.parametrize(("before", "after"), [("nat", "offload"), ("offload", "nat")])
def test_another_way_of_forwarding(world: Any, tmp_path: Path, before: str, after: str) -> None:
    """A change that would end live flows is not applied, and reported with their number, until it
    is forced or there are none; the rest of the file is applied.
    """
    it: World = world(before)
    idle = [
        Peer(it.net.client, tmp_path / f"idle{family}-{n}", "pause", VIP[family], 9000)
        for family in FAMILIES
        for n in range(2)
    ]
    assert all(one.begun() for one in idle)

    def live(family: int) -> int:
        """The flows that `show` has."""
        return sum(row["flows"] or 0 for row in rows(it.running, family).values())

    if before == "nat":  # workers tell of theirs a moment later; the kernel is asked for its own
        wait_until(lambda: [live(family) for family in FAMILIES] == [2, 2], it.running.log)

    def change() -> dict[str, list[str]]:
        it.write(1, 2, strategy="wrr")
        text = it.running.config.read_text()
        it.running.config.write_text(text.replace(f"forward: {before}", f"forward: {after}"))
        return it.reload()

    said = change()
    assert said["restart"] == [
        f"service web{family}: forward {before} → {after} ends 2 flows;"
        " `paraglider reload --force` does it all the same"
        for family in FAMILIES
    ]
    assert [one.end() for one in idle[::2]] == [{"arrived": 3}] * 2
    forced = control(it.running).post("reload", {"force": True})
    assert forced["restart"] == []
    assert f"service web4: forward {before} → {after}" in forced["changed"]
    for family in FAMILIES:  # workers are replaced, one after the other
        wait_until(lambda f=family: set(tries(it.net, f, 6)) == it.names(1, 2), it.running.log)
    assert [one.end() for one in idle[1::2]] == [{"error": "ECONNRESET"}] * 2
