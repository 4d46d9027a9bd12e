"""One of several balancers: its files, and what is done to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.member import Member


class Air:
    """A network of two balancers, and the namespace of each."""

    def __init__(self) -> None:
        self.hosts = [self, self]
        self.done: list[Any] = []

    def plug(self, number: int, *, into: bool) -> None:
        """Cables."""
        self.done.append((number, into))

    def run(self, command: list[str]) -> None:
        """A program."""
        self.done.append(command[5:])


@pytest.fixture
def air() -> Air:
    """The network."""
    return Air()


@pytest.fixture
def member(air: Air, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    """Its second balancer."""
    monkeypatch.setattr(LabBalancer, "start", lambda _: air.done.append("start"))
    monkeypatch.setattr(LabBalancer, "stop", lambda _, *how: air.done.append(("stop", *how)))
    monkeypatch.setattr(
        ControlClient, "post", lambda self, what, body: air.done.append((self.path, what, body))
    )
    net: Any = air
    return Member(net, 2, tmp_path / "lb2", {"workers": 1})


def test_its_files(member: Member, tmp_path: Path) -> None:
    """The configuration, and an empty directory for the daemon."""
    assert yaml.safe_load(member.balancer.config.read_text()) == {"workers": 1}
    assert (tmp_path / "lb2" / "empty").is_dir()
    assert member.command[1:] == ["-m", "paraglider", "-c", str(member.balancer.config)]


def test_what_is_done(member: Member, air: Air) -> None:
    """The operator's commands, signals and cables."""
    control = str(member.directory / "control.sock")
    member.start()
    member.kill()
    member.unplug()
    member.plug()
    member.drain()
    member.ready()
    member.drain(until_restart=True)
    member.await_silence()
    member.restart()
    assert air.done == [
        "start",
        ("stop", 9),
        (2, False),
        (2, True),
        (control, "node", {"state": "drain", "until_restart": False}),
        (control, "node", {"state": "ready"}),
        (control, "node", {"state": "drain", "until_restart": True}),
        ["node", "drain", "--until-restart", "--wait", "5"],
        ("stop",),
        "start",
    ]
