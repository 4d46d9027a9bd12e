"""Tests of ``paraglider.announcer.bird``, with a BIRD that answers, hangs, refuses or restarts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from paraglider.announcer import bird as module
from paraglider.announcer.bird import DEADLINE, PAUSE, REFUSED, REPEAT, BirdOutput, enabled
from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig, BirdConfig
from paraglider.config.types import IPAddress
from paraglider.daemon.processes.loop import Loop

WEB, MAIL, SIX = map(ip_address, ("203.0.113.11", "203.0.113.12", "2001:db8::11"))
GREETING = b"0001 BIRD 2.0.12 ready.\n"
UP, WORSE, DOWN = VipRoute.ANNOUNCED, VipRoute.NOT_PREFERRED, VipRoute.WITHDRAWN


def section(path: Path, **more: object) -> AnnounceConfig:
    """A protocol for the VIPs of each family, and one of its own for MAIL."""
    bird = {"socket": str(path), "protocols": {"4": "p4", "6": "p6", str(MAIL): "mail"}, **more}
    return AnnounceConfig.model_validate({"bird": bird})


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ({}, {}),
        ({WEB: UP}, {"p4": True, "w4": True}),
        ({WEB: WORSE}, {"p4": False, "w4": True}),
        ({WEB: DOWN, SIX: UP}, {"p4": False, "w4": False, "p6": True}),
        ({WEB: DOWN, MAIL: UP}, {"p4": False, "mail": True, "w4": True}),
    ],
)
def test_which_protocols_are_enabled(
    routes: dict[IPAddress, VipRoute], expected: dict[str, bool]
) -> None:
    """A family's as long as one of its VIPs wants it; one that a VIP has of its own is its."""
    config = section(Path("/run/b"), worse={"4": "w4"}).bird
    assert isinstance(config, BirdConfig)
    assert enabled(config, routes) == expected


class Scene:
    """BIRD's socket, what was asked there, and the output; the clock stands still."""

    def __init__(self, directory: Path, loop: Loop) -> None:
        self.path, self.loop = directory / "bird.ctl", loop
        self.now = 100.0
        self.listening: socket.socket | None = None
        self.end: socket.socket | None = None
        self.output = BirdOutput(section(self.path), lambda: self.now)
        self.output.attach(loop)

    def listen(self) -> None:
        """BIRD starts."""
        self.path.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.listening.settimeout(5)

    def stop(self) -> None:
        """BIRD ends."""
        for one in (self.listening, self.end):
            if one is not None:
                one.close()
        self.end = self.listening = None

    def say(self, vip: IPAddress, route: VipRoute) -> None:
        """A route has changed."""
        self.output.say(VipChange(vip, route, ""))

    def poll(self, after: float = 0.0) -> float:
        """The output goes on, so much later."""
        self.now += after
        self.loop.wait(0)
        return self.output.poll(self.now)

    def accept(self) -> None:
        """BIRD takes the connection, and greets."""
        assert self.listening is not None
        self.end, _ = self.listening.accept()
        self.end.settimeout(5)
        self.end.sendall(GREETING)
        self.poll()

    def asked(self, answer: bytes | None = None) -> str:
        """The next command, which gets ``answer``, or what BIRD answers to it."""
        assert self.end is not None
        command = self.end.recv(1000).decode()
        assert command.endswith("\n")
        verb, name = command.split()
        code = "0011" if verb == "enable" else "0009"
        self.end.sendall(answer or f"{code}-{name}: {verb}d\n0000 \n".encode())
        self.poll()
        return command.rstrip()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One whose BIRD runs."""
    with Loop(()) as loop:
        it = Scene(tmp_path, loop)
        it.listen()
        yield it
        it.output.close()
        it.stop()


def test_one_command_after_the_other(scene: Scene) -> None:
    """The ones that enable come first; nothing is asked that holds already."""
    assert scene.poll() > 1e9
    scene.say(WEB, DOWN)
    scene.say(SIX, UP)
    assert scene.poll() == pytest.approx(DEADLINE)
    scene.accept()
    assert scene.asked() == "enable p6"
    assert not scene.output.settled
    assert scene.asked() == "disable p4"
    assert scene.output.settled
    scene.say(WEB, DOWN)
    assert scene.poll() == pytest.approx(REPEAT)
    scene.say(WEB, UP)
    scene.poll()
    assert scene.asked(b"0010-p4: already enabled\n0000 \n") == "enable p4"
    assert scene.output.settled


def test_the_newest_of_what_changed_meanwhile(scene: Scene) -> None:
    """A command that is under way is answered first."""
    scene.say(WEB, UP)
    scene.poll()
    scene.accept()
    for route in (DOWN, UP, DOWN):
        scene.say(WEB, route)
        scene.poll()
    assert scene.asked() == "enable p4"
    assert scene.asked() == "disable p4"
    assert scene.output.settled


@pytest.mark.parametrize("greets", [False, True])
def test_a_bird_that_hangs(scene: Scene, greets: bool) -> None:
    """It is not waited for; after the deadline the connection is made again."""
    scene.say(WEB, UP)
    scene.poll()
    if greets:
        scene.accept()
    with capture_logs() as logs:
        assert scene.poll(DEADLINE - 0.1) <= 0.1 + 1e-6
        assert logs == []
        assert scene.poll(0.2) == pytest.approx(PAUSE)
    assert [line["why"] for line in logs] == ["no answer in 2 s"]
    scene.stop()
    scene.listen()
    scene.poll(PAUSE)
    with capture_logs() as logs:
        scene.accept()
    assert [line["event"] for line in logs] == ["BIRD answers again"]
    assert scene.asked() == "enable p4"


def test_a_bird_that_has_read_its_file_again(scene: Scene) -> None:
    """Its protocols may be as in the file: all is said again."""
    scene.say(WEB, UP)
    scene.say(SIX, DOWN)
    scene.poll()
    scene.accept()
    for _ in range(2):
        assert scene.asked() == "enable p4"
        assert scene.asked() == "disable p6"
        assert scene.output.settled
        assert scene.poll() == pytest.approx(REPEAT)
        scene.poll(REPEAT)


def test_a_thousand_protocols(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be said is found once a change, however many there are; and what takes long is
    repeated less often.
    """
    found = 0

    def counted(*given: Any) -> dict[str, bool]:
        nonlocal found
        found += 1
        return enabled(*given)

    monkeypatch.setattr(module, "enabled", counted)
    vips = [ip_address(f"203.0.{number // 250}.{number % 250}") for number in range(1000)]
    names = {str(vip): f"v{number}" for number, vip in enumerate(vips)}
    bird = {"socket": str(scene.path), "protocols": names}
    scene.output.configure(AnnounceConfig.model_validate({"bird": bird}))
    for vip in vips:
        scene.say(vip, UP)
    scene.poll()
    scene.accept()
    for number in range(1000):
        scene.now += 0.01
        assert scene.asked() == f"enable v{number}"
    assert found == 1
    assert scene.output.settled
    assert scene.poll() == pytest.approx(20 * 10.0, rel=0.01)


def test_a_change_does_not_hasten_the_repetition(scene: Scene) -> None:
    """Nor put it off: it is about everything, not about what has changed or was refused."""
    for vip in (WEB, MAIL, SIX):
        scene.say(vip, UP)
    scene.poll()
    scene.accept()
    for answer in (None, None, b"8003 No protocols match\n"):
        scene.now += 1.0
        last = scene.asked(answer)
    assert scene.output.settled
    pause = 20 * 3.0 - REFUSED
    scene.poll(REFUSED)
    assert scene.asked() == last
    assert scene.poll() == pytest.approx(pause)
    for route, verb in ((DOWN, "disable"), (UP, "enable")) * 4:
        scene.say(WEB, route)
        pause -= REPEAT / 2
        scene.poll(REPEAT / 2)
        assert scene.asked() == f"{verb} p4"
        assert scene.poll() == pytest.approx(pause)
    scene.poll(pause)
    assert len({scene.asked() for _ in range(3)}) == 3


def test_a_refused_command_that_is_due_waits_for_an_answer(scene: Scene) -> None:
    """BIRD takes long for another; the process sleeps meanwhile."""
    scene.say(WEB, UP)
    scene.poll()
    scene.accept()
    scene.asked(b"8003 No protocols match\n")
    scene.say(SIX, UP)
    scene.poll(REFUSED - 0.5)
    assert scene.poll(1.0) == pytest.approx(DEADLINE - 1.0)
    assert scene.asked() == "enable p6"
    assert scene.asked() == "enable p4"


def test_a_bird_that_is_restarted(scene: Scene) -> None:
    """It has forgotten what it was told, and is told all again."""
    scene.say(WEB, UP)
    scene.poll()
    scene.accept()
    scene.asked()
    with capture_logs() as logs:
        scene.stop()
        scene.poll()
        for _ in range(3):
            scene.poll(PAUSE)
    assert [line["why"] for line in logs] == ["it has closed the connection"]
    assert not scene.output.settled
    scene.listen()
    scene.poll(PAUSE)
    scene.accept()
    assert scene.asked() == "enable p4"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"8003 No protocols match\n", "No protocols match"),
        (b"9001 syntax error, unexpected CF_SYM_UNDEFINED\n", "syntax error, unexpected CF_SY"),
        (b"8007 Access denied\n", "Access denied"),
    ],
)
def test_a_bird_that_refuses(scene: Scene, answer: bytes, why: str) -> None:
    """The log says what; it is tried again later, and others meanwhile."""
    scene.say(WEB, UP)
    scene.say(SIX, UP)
    scene.poll()
    scene.accept()
    with capture_logs() as logs:
        assert scene.asked(answer) == "enable p4"
    assert [(line["protocol"], line["why"][: len(why)]) for line in logs] == [("p4", why)]
    assert scene.asked() == "enable p6"
    assert scene.output.settled
    assert scene.poll() == pytest.approx(REPEAT)
    scene.poll(REPEAT)
    assert scene.asked() == "enable p6"
    scene.poll(REFUSED)
    assert scene.asked() == "enable p4"
    assert scene.asked() == "enable p6"
    assert scene.output.settled


def test_what_is_no_bird(scene: Scene) -> None:
    """An answer without end is given up."""
    scene.say(WEB, UP)
    scene.poll()
    scene.accept()
    assert scene.end is not None
    scene.end.setblocking(False)
    with capture_logs() as logs:
        for _ in range(40):
            try:
                scene.end.send(b"x" * 8192)
            except OSError:
                break
            scene.poll()
    assert [line["why"] for line in logs] == ["what answers is no BIRD"]


def test_another_file(scene: Scene) -> None:
    """Protocols that it names no more are disabled; another socket is another BIRD."""
    scene.say(WEB, UP)
    scene.poll()
    scene.accept()
    scene.asked()
    scene.output.configure(section(scene.path, protocols={"4": "new4"}))
    scene.poll()
    assert [scene.asked(), scene.asked()] == ["enable new4", "disable p4"]
    elsewhere = scene.path.with_name("other.ctl")
    scene.output.configure(section(elsewhere, protocols={"4": "new4"}))
    with capture_logs() as logs:
        scene.poll()
    assert [line["socket"] for line in logs] == [str(elsewhere)]
    with pytest.raises(ValueError, match="no `bird`"):
        scene.output.configure(AnnounceConfig())
