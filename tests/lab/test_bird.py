"""BIRD's configuration in the lab, its processes, and the routes of its router."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab import bird
from paraglider.lab.bird import Bird, balancer_configuration, router_configuration

CONF = Path(__file__).parents[2] / "conf"
MANY = 3  # balancers in the example of the router
#: of balancers 1 and 2: an address as in the network, and the link-local one
OWN = {1: ["192.168.0.1", "fe80::a"], 2: ["192.168.0.2", "fe80::b"]}


def settings(text: str) -> list[str]:
    """The words of a file, without comments and the place of its log."""
    text = re.sub(r"^log .*;", "log;", re.sub(r"#.*", "", text), flags=re.MULTILINE)
    return text.split()


def test_they_are_the_shipped_examples() -> None:
    """But for the logs."""
    for name, text in (
        ("bird.conf", balancer_configuration(1, Path("/tmp/lab/lb1"))),
        ("bird-router.conf", router_configuration(MANY, Path("/tmp/lab/router"))),
    ):
        assert settings(text) == settings((CONF / name).read_text(encoding="utf-8"))


def test_each_balancer_and_the_router_has_its_own(tmp_path: Path) -> None:
    """Its router id, and its log; and the router has a session of each family with each."""
    one, two = (balancer_configuration(n, tmp_path) for n in (1, 2))
    assert one.replace("router id 192.168.0.1;", "router id 192.168.0.2;") == two
    assert f'log "{tmp_path}/bird.log" all;' in one
    text = router_configuration(12, tmp_path)
    assert text.count("protocol bgp lb") == 24
    assert "protocol bgp lb12v6 from balancer6 { neighbor 2001:db8::12 as 65001; }\n" in text


class Process:
    """A program that runs until it is killed."""

    def __init__(self, done: list[str], command: list[str]) -> None:
        self._done, self._name = done, Path(command[0]).name
        done.append(self._name)

    def poll(self) -> None:
        """It runs."""

    def kill(self) -> None:
        """End it."""
        self._done.append(f"{self._name} killed")

    def wait(self) -> None:
        """It has ended."""


class Host:
    """A namespace: what was done is remembered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done: list[str] = []

    def popen(self, command: list[str], **_: Any) -> Process:
        """A process."""
        return Process(self.done, command)

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """A program that succeeds."""
        return subprocess.CompletedProcess(command, 0)


class Lab:
    """A network of two balancers, whose router has ``routes`` as `ip -json` shows them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.router = Host("router")
        self.hosts = [Host("1"), Host("2")]
        self.routes: dict[str, list[Any]] = {"-4": [], "-6": []}
        monkeypatch.setattr(bird, "execute", self.execute)
        net: Any = self
        self.bird = Bird(net, directory / "router")
        for number in OWN:
            (directory / f"lb{number}").mkdir()
        self._directory = directory

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """`ip`."""
        if "address" in command:
            found = [{"addr_info": [{"local": each} for each in OWN[int(command[2])]]}]
        else:
            assert command[2] == "router"
            found = self.routes[command[4]]
        return subprocess.CompletedProcess(command, 0, json.dumps(found) if found else "")

    def member(self, number: int) -> Any:
        """A balancer whose daemon runs."""
        return Member(self.hosts[number - 1], number, self._directory / f"lb{number}")


class Member:
    """As the lab's."""

    def __init__(self, host: Host, number: int, directory: Path) -> None:
        self.host, self.number, self.directory = host, number, directory
        self.command = ["/usr/bin/paraglider"]


def hops(*gateways: str) -> list[Any]:
    """A route as `ip -json` shows it: with one next hop, or with several."""
    if len(gateways) == 1:
        return [{"dst": "vip", "gateway": gateways[0]}]
    return [{"dst": "vip", "nexthops": [{"gateway": each} for each in gateways]}]


def test_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BIRD in the router from the beginning; in a balancer BIRD and the announcer, which end
    without a word and may begin again.
    """
    lab = Lab(tmp_path, monkeypatch)
    assert lab.router.done == ["bird"]
    lab.bird.begin(lab.member(2))
    assert lab.hosts[1].done == ["bird", "paraglider"]
    assert (tmp_path / "lb2" / "bird.conf").read_text() == balancer_configuration(
        2, tmp_path / "lb2"
    )
    lab.bird.cut(lab.member(2))
    assert lab.hosts[1].done[2:] == ["paraglider killed", "bird killed"]
    lab.bird.begin(lab.member(2))
    assert lab.hosts[1].done[4:] == ["bird", "paraglider"]
    lab.bird.close()
    lab.bird.close()


def test_routes_are_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families, to exactly those balancers, by any of their addresses."""
    lab = Lab(tmp_path, monkeypatch)
    for number in OWN:
        lab.bird.begin(lab.member(number))
    since = time.monotonic()
    lab.routes = {"-4": hops("192.168.0.2", "192.168.0.1"), "-6": hops("fe80::b", "fe80::a")}
    assert 0 <= lab.bird.await_hops({1, 2}, since) <= time.monotonic() - since
    lab.routes = {"-4": hops("192.168.0.2"), "-6": hops("fe80::b")}
    lab.bird.await_hops({2}, since)
    lab.routes = {"-4": [], "-6": []}
    lab.bird.await_hops((), since)

    monkeypatch.setattr(bird, "TIMEOUT", 0.0)
    lab.routes["-6"] = hops("fe80::a")
    with pytest.raises(PlatformError, match=r"to the balancers \{4: \[\], 6: \[1\]\}, not to \[1"):
        lab.bird.await_hops([1], since)
