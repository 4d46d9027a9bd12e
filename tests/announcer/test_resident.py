"""Tests of ``paraglider.announcer.resident``: the process, from the daemon's word to the output."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import ILL, WELL, FakeDaemon
from structlog.testing import capture_logs

from paraglider.announcer import resident
from paraglider.announcer.resident import Resident, once, reading, section_of
from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig
from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import Config
from paraglider.config.steps import Steps, completed
from paraglider.daemon.processes.loop import Loop
from paraglider.errors import OperatorError, PlatformError

WEB, MAIL = "203.0.113.11", "203.0.113.12"
FILE = """\
control: {socket: SOCKET}
announce: ANNOUNCE
services:
  - {name: web, vip: 203.0.113.11, protocol: tcp, ports: 80, forward: proxy, backends: [10.0.0.1]}
  - {name: mail, vip: 203.0.113.12, protocol: tcp, ports: 25, forward: proxy, backends: [10.0.0.1]}
"""


class Recorded:
    """An output that says nothing, and remembers; ``held``: it cannot say anything now."""

    def __init__(self) -> None:
        self.broken = False
        self.held = False
        self.closed = False
        self.said: list[tuple[str, str]] = []
        self.configured: list[AnnounceConfig] = []

    @property
    def settled(self) -> bool:
        """See ``Output``."""
        return not self.held

    def attach(self, loop: Loop) -> None:
        """See ``Output``."""

    def configure(self, config: AnnounceConfig) -> None:
        """See ``Output``."""
        if config.exec:
            raise ValueError("it has no `bird`")
        self.configured.append(config)

    def say(self, change: VipChange) -> None:
        """See ``Output``."""
        self.said.append((str(change.vip), change.route.value))

    def poll(self, _now: float) -> float:
        """See ``Output``."""
        return 3600.0

    def close(self) -> None:
        """See ``Output``."""
        self.closed = True


class Scene:
    """A file, a daemon, and the process; the clock stands still."""

    def __init__(self, directory: Path, loop: Loop, announce: str = "{}") -> None:
        self.file = directory / "file"
        self.daemon = FakeDaemon(directory / "control.sock")
        self.write(announce)
        self.now, self.loop, self.output = 100.0, loop, Recorded()
        self.process = Resident(self.read(), self.output, self.reread, lambda: self.now)
        self.process._stream.attach(loop)

    def write(self, announce: str) -> None:
        """The file has that section."""
        text = FILE.replace("SOCKET", str(self.daemon.path)).replace("ANNOUNCE", announce)
        self.file.write_text(text)

    def reread(self) -> Steps[Config]:
        """Read it."""
        return reading(self.file, frozenset({4, 6}))

    def read(self) -> Config:
        """Read it at once."""
        return completed(self.reread())

    def turn(self, after: float = 0.0) -> list[tuple[str, str]]:
        """What is said, so much later."""
        self.now += after
        self.output.said = []
        for _ in range(100):
            self.loop.wait(0)
            if self.process.turn() > 0:
                self.loop.wait(0)
                self.process.turn()
                break
        return self.output.said

    def begin(self) -> None:
        """Both VIPs are announced."""
        self.turn()
        self.daemon.accept()
        self.daemon.tell({WEB: WELL, MAIL: WELL}, loads=1)
        assert self.turn() == []
        self.turn(0.9)
        self.daemon.tell()
        assert self.turn(0.1) == [(WEB, "announced"), (MAIL, "announced")]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One whose daemon listens."""
    with Loop(()) as loop:
        it = Scene(tmp_path, loop)
        yield it
        it.process._stream.close()
        it.daemon.die()


def test_a_change_is_said_and_logged(scene: Scene) -> None:
    """With its reason; another VIP's routes stay."""
    scene.begin()
    scene.daemon.tell({MAIL: ILL, "192.0.2.9": ILL, "x": ILL, WEB: {"announce": 1}})
    with capture_logs() as logs:
        assert scene.turn() == [(MAIL, "not-preferred")]
    why = "service web: no backend takes new flows"
    line = {"event": "route changed", "vip": MAIL, "route": "not-preferred", "why": why}
    assert logs == [{**line, "log_level": "info"}]


def test_a_daemon_that_is_killed(scene: Scene) -> None:
    """Everything is withdrawn in the same turn, and announced again when the next one is there."""
    scene.begin()
    scene.daemon.die()
    with capture_logs() as logs:
        assert scene.turn() == [(WEB, "withdrawn"), (MAIL, "withdrawn")]
    assert [line["event"] for line in logs] == ["the daemon is gone", *2 * ["route changed"]]
    scene.daemon.listen()
    scene.turn(0.2)
    scene.daemon.accept()
    scene.daemon.tell({WEB: WELL, MAIL: WELL}, loads=1)
    with capture_logs() as logs:
        assert scene.turn() == []
    assert [line["event"] for line in logs] == ["the daemon answers"]
    assert scene.turn(1.0) == [(WEB, "announced"), (MAIL, "announced")]
    assert len(scene.output.configured) == 1  # another daemon may have read another file


def test_an_http_process_that_is_replaced(scene: Scene) -> None:
    """Nothing is said, logged or read again."""
    scene.begin()
    with capture_logs() as logs:
        scene.daemon.hang_up()
        assert scene.turn() == []
        assert scene.turn(1.0) == []
        scene.daemon.accept()
        scene.daemon.tell({WEB: WELL, MAIL: WELL}, loads=1)
        assert scene.turn() == []
    assert logs == []
    assert scene.output.configured == []


def test_a_daemon_that_hangs(scene: Scene) -> None:
    """Everything is withdrawn after four seconds."""
    scene.begin()
    assert scene.turn(3.9) == []
    assert scene.turn(0.2) == [(WEB, "withdrawn"), (MAIL, "withdrawn")]


def test_a_reload(scene: Scene) -> None:
    """The file is read again when the daemon has; new VIPs and settings are taken over."""
    scene.begin()
    scene.write(f"{{vips: [{MAIL}], med: 5}}")
    scene.daemon.tell({MAIL: WELL}, loads=2)
    # The daemon's word comes first, which withdraws it just so.
    assert scene.turn() == [(WEB, "withdrawn")]
    assert [one.med for one in scene.output.configured] == [5]
    scene.write("{}")
    scene.daemon.tell({MAIL: WELL, WEB: WELL}, loads=3)
    assert scene.turn() == []
    assert scene.turn(1.0) == [(WEB, "announced")]
    scene.write("null")
    scene.daemon.tell({}, loads=4)
    assert sorted(scene.turn()) == [(WEB, "withdrawn"), (MAIL, "withdrawn")]


@pytest.mark.parametrize(
    ("announce", "why"),
    [("{vips: none}", "neither `all` nor a list"), ("{exec: [/bin/x]}", "it has no `bird`")],
)
def test_a_file_that_cannot_be_taken_over(scene: Scene, announce: str, why: str) -> None:
    """Changes nothing; the log says why."""
    scene.begin()
    scene.write(announce)
    scene.daemon.tell({WEB: WELL, MAIL: WELL}, loads=2)
    with capture_logs() as logs:
        assert scene.turn() == []
    (line,) = logs
    assert why in line["error"]
    scene.daemon.tell({WEB: ILL})
    assert scene.turn() == [(WEB, "not-preferred")]


def test_a_daemon_that_comes_later(scene: Scene) -> None:
    """The file may have changed since this process has read it."""
    scene.daemon.die()
    assert scene.turn() == [(WEB, "withdrawn"), (MAIL, "withdrawn")]
    scene.write("{rise: 7}")
    scene.daemon.listen()
    scene.turn(0.5)
    scene.daemon.accept()
    scene.daemon.tell({WEB: WELL, MAIL: WELL}, loads=1)
    assert scene.turn() == []
    assert [one.rise for one in scene.output.configured] == [7.0]


class Running:
    """The process in a thread of the test, until it ends."""

    def __init__(self, scene: Scene, ending: threading.Event, *, stdin: bool = False) -> None:
        scene.write("{rise: 0}")

        def talk() -> None:
            scene.daemon.accept()
            scene.daemon.tell({WEB: WELL, MAIL: ILL}, loads=1)
            ending.wait(20)
            self.end()

        self._thread = threading.Thread(target=talk)
        self._thread.start()
        with resident.loop() as loop:
            process = Resident(scene.read(), scene.output, scene.reread)
            original = scene.output.say

            def say(change: VipChange) -> None:
                original(change)
                if change.route is VipRoute.ANNOUNCED:
                    ending.set()

            scene.output.say = say  # type: ignore[method-assign]
            process.run(loop, stdin=stdin)
        self._thread.join()

    def end(self) -> None:
        """What ends it."""
        os.kill(os.getpid(), signal.SIGTERM)


EVERYTHING = [(WEB, "announced"), (MAIL, "not-preferred"), (WEB, "withdrawn"), (MAIL, "withdrawn")]


def test_sigterm(scene: Scene) -> None:
    """Everything is withdrawn before it ends."""
    Running(scene, threading.Event())
    assert scene.output.said == EVERYTHING
    assert scene.output.closed


def test_exabgp_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end of standard input is closed; what it wrote there before is read and forgotten."""
    reading_end, writing_end = os.pipe()
    monkeypatch.setattr(resident, "_STDIN", reading_end)
    os.write(writing_end, b"done\n" * 1000)
    monkeypatch.setattr(Running, "end", lambda _: os.close(writing_end))
    Running(scene, threading.Event(), stdin=True)
    assert scene.output.said == EVERYTHING
    os.close(reading_end)


def test_exabgp_that_reads_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end it is waited for so long; one that is gone ends this process at once."""
    monkeypatch.setattr(resident, "ENDING", 0.1)
    scene.output.held = True
    Running(scene, threading.Event())
    assert scene.output.said == EVERYTHING
    scene.output.broken = True
    with resident.loop() as loop:
        Resident(scene.read(), scene.output, scene.reread).run(loop, stdin=False)


def test_once(scene: Scene) -> None:
    """For a dry run: what is to be said now, without a wait; an error if no daemon tells it."""
    talking = threading.Thread(
        target=lambda: (scene.daemon.accept(), scene.daemon.tell({WEB: WELL, MAIL: ILL}, loads=1))
    )
    talking.start()
    found = once(scene.read())
    talking.join()
    assert [(str(one.vip), one.route.value) for one in found] == [
        (WEB, "announced"),
        (MAIL, "not-preferred"),
    ]
    scene.daemon.die()
    with pytest.raises(PlatformError, match="no paraglider answers at .*; start the daemon"):
        once(scene.read())


def test_the_file(scene: Scene) -> None:
    """Its mistakes are errors; without the section there is nothing to do."""
    assert scene.read().announced == (ip_address(WEB), ip_address(MAIL))
    scene.write("{via: x}")
    with pytest.raises(ConfigError):
        scene.read()
    scene.write("null")
    with pytest.raises(OperatorError, match="the file has no `announce`, so no VIP is announced"):
        section_of(scene.read())
    scene.write("{}")
    config: Any = scene.read()
    assert section_of(config) is config.announce
