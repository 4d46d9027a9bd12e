"""Tests of ``paraglider.announcer.programs``, with programs that end, fail, hang or are missing."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from waiting import wait_until

from paraglider.announcer.programs import DEADLINE, MOST, PAUSE, ProgramOutput, arguments
from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig
from paraglider.config.types import IPAddress

WEB, MAIL = map(ip_address, ("203.0.113.11", "203.0.113.12"))
UP, WORSE, DOWN = VipRoute.ANNOUNCED, VipRoute.NOT_PREFERRED, VipRoute.WITHDRAWN


class Scene:
    """A program that notes its arguments, or does what ``script`` says; the clock stands still."""

    def __init__(self, directory: Path) -> None:
        self.notes, self.program = directory / "notes", directory / "program"
        self.now = 100.0
        self.write("exit 0")
        self.output = ProgramOutput(self.config())

    def config(self, *more: str) -> AnnounceConfig:
        """The section with the program."""
        return AnnounceConfig(exec=(str(self.program), *more))

    def write(self, script: str) -> None:
        """The program notes its arguments, and then does that."""
        self.program.unlink(missing_ok=True)
        # A line in one write: programs run side by side.
        note = f'line=$(printf "%s|" "$@"); echo "$line" >> {self.notes}'
        self.program.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        self.program.chmod(0o700)

    def say(self, vip: IPAddress, route: VipRoute, why: str = "why") -> None:
        """A route has changed."""
        self.output.say(VipChange(vip, route, why))

    def poll(self, after: float = 0.0) -> float:
        """The output goes on, so much later."""
        self.now += after
        return self.output.poll(self.now)

    def settle(self) -> None:
        """Everything is said, without any time that passes."""
        wait_until(lambda: (self.poll(), self.output.settled)[1])

    def noted(self) -> list[str]:
        """The arguments of each run."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One whose program works."""
    it = Scene(tmp_path)
    yield it
    it.output.close()


def test_a_program_is_told_each_change(scene: Scene) -> None:
    """Its arguments are the VIP, what holds, and why; no shell reads them."""
    assert scene.poll() > 1e9
    scene.say(WEB, WORSE, "a; $(touch /x) 'b'")
    scene.settle()
    scene.say(WEB, DOWN)
    scene.settle()
    assert scene.noted() == [
        "203.0.113.11|prefer_not|a; $(touch /x) 'b'|",
        "203.0.113.11|withdraw|why|",
    ]
    command = arguments(scene.config("-v"), VipChange(WEB, UP, "w"))
    assert command[1:] == ["-v", "203.0.113.11", "announce", "w"]


def test_the_newest_of_what_changed_while_it_ran(scene: Scene) -> None:
    """One program a VIP at a time."""
    fifo = scene.notes.with_name("go")
    scene.write(f"until [ -e {fifo} ]; do sleep 0.02; done")
    scene.say(WEB, UP)
    scene.poll()
    for route in (DOWN, UP, WORSE):
        scene.say(WEB, route)
        scene.poll()
    fifo.touch()
    scene.settle()
    assert [line.split("|")[1] for line in scene.noted()] == ["announce", "prefer_not"]


def test_a_program_that_hangs(scene: Scene) -> None:
    """It is killed with what it has started, and run again later; others run meanwhile."""
    child = scene.notes.with_name("child")
    scene.write(f'if [ "$1" = {WEB} ]; then sleep 600 & echo $! > {child}; wait; fi')
    scene.say(WEB, UP)
    scene.say(MAIL, UP)
    scene.poll()
    wait_until(lambda: child.exists() and child.read_text())
    wait_until(lambda: (scene.poll(), len(scene.output._runs) == 1)[1])
    with capture_logs() as logs:
        assert scene.poll(DEADLINE - 0.1) <= 0.1 + 1e-6
        scene.poll(0.2)
    assert [line["why"] for line in logs] == ["no end in 5 s, killed"]
    gone = Path(f"/proc/{child.read_text().strip()}/stat")
    wait_until(lambda: not gone.exists() or gone.read_text().rpartition(")")[2].split()[0] == "Z")
    scene.write("exit 0")
    scene.poll(PAUSE)
    scene.settle()
    assert [line.split("|")[0] for line in scene.noted()].count(str(WEB)) == 2


@pytest.mark.parametrize("missing", [False, True])
def test_a_program_that_fails(scene: Scene, missing: bool) -> None:
    """It is run again after a pause; a change in between is told at once."""
    scene.write("exit 3")
    if missing:
        scene.program.unlink()
    scene.say(WEB, UP)
    with capture_logs() as logs:
        scene.poll()
        wait_until(lambda: (scene.poll(), logs)[1])
    why = "it does not start: No such file or directory" if missing else "exit code 3"
    assert [line["why"] for line in logs] == [why]
    assert not scene.output.settled
    assert scene.poll() == pytest.approx(PAUSE)
    scene.write("exit 0")
    scene.say(WEB, DOWN)
    scene.settle()
    assert scene.noted()[-1] == "203.0.113.11|withdraw|why|"


def test_only_some_run_at_a_time(scene: Scene) -> None:
    """A mass failure starts no mass of processes."""
    scene.write("sleep 600")
    for number in range(3 * MOST):
        scene.say(ip_address(f"203.0.113.{number}"), DOWN)
    scene.poll()
    assert len(scene.output._runs) == MOST
    scene.output.close()
    assert not scene.output._runs


def test_another_file(scene: Scene) -> None:
    """Another program is told everything."""
    scene.say(WEB, UP)
    scene.settle()
    scene.output.configure(scene.config())
    assert scene.output.settled
    scene.output.configure(scene.config("-v"))
    scene.settle()
    assert scene.noted() == [
        "203.0.113.11|announce|why|",
        "-v|203.0.113.11|announce|the program is another|",
    ]
    with pytest.raises(ValueError, match="no `exec`"):
        scene.output.configure(AnnounceConfig())
