"""Tests of ``paraglider.daemon.inputs.sources``: the effects of updates and failures, and log
lines.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paraglider.config import source
from paraglider.config.load import LoadedConfig, parse
from paraglider.config.model import Config
from paraglider.config.sources import origins, read_files
from paraglider.daemon.inputs import sources as sources_module
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.sources import (
    QUIET,
    REMINDER,
    RETRY,
    SETTLED,
    SourceInput,
)
from paraglider.daemon.inputs.startup_sources import gathered
from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate, FileChanged, SetSources
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.store.store import Store
from paraglider.errors import PlatformError
from paraglider.host.dns_records import Record
from paraglider.host.file_watch import PAUSE
from paraglider.host.resolv_conf import ResolvConf

CONF = """\
network: {private: {interface: eth1, gateway: [10.0.0.254/8]}, public: {interface: eth0}}
services:
  - {name: web, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: {file: DIR/web}}
  - {name: dns, vip: 192.168.0.14/24, protocol: tcp, ports: 83, backends: {dns: _a._tcp.example}}
  - {name: own, vip: 192.168.0.13/24, protocol: tcp, ports: 82, backends: [10.0.0.7]}
  - {name: six, vip: 2001:db8::11, protocol: tcp, ports: 83,
     backends: {dns: _a._tcp.example, server: "127.0.0.1:8600"}}
"""
A = DnsName("_a._tcp.example", "", 4)
SIX = DnsName("_a._tcp.example", "127.0.0.1:8600", 6)


class Log:
    """Records lines as level, event and subject."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.why: list[str] = []

    def info(self, event: str, **facts: Any) -> None:
        """See structlog."""
        self.lines.append((event, facts["source"]))

    def warning(self, event: str, **facts: Any) -> None:
        """See structlog."""
        self.lines.append((event, facts["source"]))
        self.why.append(facts["why"])

    def error(self, event: str, **facts: Any) -> None:
        """See structlog."""
        self.lines.append((event, "error"))


class Controller:
    """A controller that applies everything, unless ``refuses`` has a reason."""

    def __init__(self, wanted: Config) -> None:
        self.store = Store(wanted, 0.0)
        self.requested_by: list[str] = []
        self.refuses = ""
        self.adjusting = False

    def apply_config(self, config: Config, requested_by: str, again: object = None) -> None:
        """See ``Controller``."""
        if self.adjusting:
            raise HostPendingError
        if self.refuses:
            raise PlatformError(self.refuses)
        self.store.apply(self.store.desired.replaced(config), 1.0)
        self.requested_by.append(requested_by)

    def backends(self, name: str) -> list[str]:
        """Those of a service."""
        (service,) = (s for s in self.store.listed.services if s.name == name)
        return [f"{b.name} {b.weight}" for b in service.backends]


def source_input(
    controller: Controller,
    config: Config,
    clock: Callable[[], float],
    kept: DnsCache | None = None,
) -> SourceInput:
    """That of ``controller``, with the sources of ``config``."""
    return SourceInput(controller.store, controller.apply_config, origins(config), clock, kept)


class Scene:
    """SourceInput with CONF; ``file`` is the file of `web`."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = directory / "web"
        self.file.write_text("10.0.0.1\n10.0.0.2:8080 weight=3\n")
        self.now = 1000.0
        self.log = Log()
        monkeypatch.setattr(sources_module.log, "logger", lambda: self.log)
        self.loaded: LoadedConfig = parse(CONF.replace("DIR", str(directory)), "conf")
        self.said: list[str] = []
        begun = gathered(
            self.loaded.config, read_files(self.loaded), [], self.said.append, DnsCache()
        )
        self.controller = Controller(begun)
        self.sources = source_input(self.controller, self.loaded.config, lambda: self.now)

    def answer(self, *backends: str, name: DnsName = A) -> None:
        """An answer of the DNS, some time after the last one."""
        self.now += SETTLED
        self.sources.handle(DnsUpdate(name=name, records=records(*backends), ttl=30))

    def write(self, text: str) -> None:
        """The file changes, some time after it did last."""
        self.now += SETTLED
        self.file.write_text(text)
        self.sources.handle(FileChanged(file=str(self.file)))

    def fail(self, why: str = "nobody answers") -> None:
        """The DNS does not answer."""
        self.sources.handle(DnsFailure(name=A, why=why))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """No failures; the DNS has not answered yet."""
    return Scene(tmp_path, monkeypatch)


def records(*backends: str) -> tuple[Record, ...]:
    """`ADDRESS PORT WEIGHT` each."""
    split = (text.split() for text in backends)
    return tuple(Record(ipaddress.ip_address(a), int(p), int(w)) for a, p, w in split)


def test_the_errand(scene: Scene) -> None:
    """All names and files, also those with known lists."""
    wanted = SetSources(names=(A, SIX), files=(str(scene.file),))
    assert scene.sources.order() == wanted
    scene.answer("10.0.0.3 83 1")
    assert scene.sources.order() == wanted


def test_answers_are_taken_over(scene: Scene) -> None:
    """Each family has its own; a port is named if it is not the service's."""
    scene.answer("10.0.0.3 83 1", "10.0.0.4 8083 9")
    scene.answer("fd00::1 83 2", name=SIX)
    assert scene.controller.backends("dns") == ["10.0.0.3 1", "10.0.0.4:8083 9"]
    assert scene.controller.backends("six") == ["fd00::1 2"]
    assert scene.controller.backends("own") == ["10.0.0.7 1"]
    assert scene.controller.requested_by == [
        "DNS _a._tcp.example",
        "DNS _a._tcp.example at 127.0.0.1:8600",
    ]


def test_the_same_answer_changes_nothing(scene: Scene) -> None:
    """The controller gets changes only."""
    scene.answer("10.0.0.3 83 1")
    scene.answer("10.0.0.3 83 1")
    scene.sources.handle(FileChanged(file=str(scene.file)))
    assert len(scene.controller.requested_by) == 1


def test_a_changed_file_is_taken_over(scene: Scene) -> None:
    """Its present content."""
    scene.write("10.0.0.2:8080\n10.0.0.5\n")
    assert scene.controller.backends("web") == ["10.0.0.2:8080 1", "10.0.0.5 1"]
    assert scene.controller.requested_by == [str(scene.file)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "FILE:1:1: the file lists no backend"),
        ("10.0.0.1\n10.0.0.x\ny\n", "FILE:2:1: '10.0.0.x' is no ADDRESS[:PORT]"),
        ("10.0.0.1\n  fd00::1\n", "FILE:2:3: backend fd00::1 is IPv6"),
        ("10.0.0.254\n", "gateway 10.0.0.254 is also a backend of `web`"),
    ],
)
def test_a_bad_file_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, text: str, why: str
) -> None:
    """The last valid list stays, and the log has the mistake and its place."""
    # pytest's directories are its user's own: the workers' user may not enter them.
    monkeypatch.setattr(source, "_may_read", lambda _user, _number: True)
    before = scene.controller.store.listed
    scene.write(text)
    assert scene.controller.store.listed is before
    assert scene.log.why[0].startswith(why.replace("FILE", str(scene.file)))
    scene.write("10.0.0.1\n")
    assert scene.controller.backends("web") == ["10.0.0.1 1"]
    assert scene.log.lines[-1] == ("source of backends works again", str(scene.file))


def test_a_file_that_is_gone_changes_nothing(scene: Scene) -> None:
    """So does one that is removed."""
    before = scene.controller.store.listed
    scene.file.unlink()
    scene.sources.handle(FileChanged(file=str(scene.file)))
    assert scene.controller.store.listed is before
    assert "there is no such file" in scene.log.why[0]


def test_a_failing_name_keeps_its_last_answer(scene: Scene) -> None:
    """One line, and one when it answers again."""
    scene.answer("10.0.0.3 83 1")
    for _ in range(5):
        scene.now += 10
        scene.fail()
    assert scene.controller.backends("dns") == ["10.0.0.3 1"]
    fails = ("source of backends fails, last list kept", "DNS _a._tcp.example")
    assert scene.log.lines == [fails]
    scene.now += REMINDER
    scene.fail()
    assert scene.log.lines == [fails, fails]
    scene.answer("10.0.0.3 83 1")
    assert scene.log.lines[2:] == [("source of backends works again", "DNS _a._tcp.example")]


def test_a_flapping_source_is_reported_rarely(scene: Scene) -> None:
    """At most once a minute."""
    for _ in range(100):
        scene.now += QUIET / 20 - SETTLED
        scene.fail()
        scene.answer("10.0.0.3 83 1")
    fails = [line for line in scene.log.lines if "fails" in line[0]]
    assert len(fails) == 5
    assert len(scene.log.lines) == 10


@pytest.mark.parametrize("backend", ["192.168.0.14 83 1", "10.0.0.254 83 1", "10.0.0.3 0 1"])
def test_a_bad_answer_changes_nothing(scene: Scene, backend: str) -> None:
    """An answer that no configuration may contain is refused."""
    scene.answer("10.0.0.3 83 1")
    before = scene.controller.store.listed
    scene.answer("10.0.0.4 83 1", backend)
    assert scene.controller.store.listed is before
    assert len(scene.log.why) == 1


def test_what_the_host_refuses_is_tried_again(scene: Scene) -> None:
    """The change is applied again after RETRY seconds, without another change of the file."""
    scene.controller.refuses = "nft: no"
    scene.write("10.0.0.5\n")
    assert scene.controller.backends("web") != ["10.0.0.5 1"]
    assert scene.sources.turn(scene.now) == RETRY
    scene.controller.refuses = ""
    assert scene.sources.turn(scene.now + RETRY) > 0
    assert scene.controller.backends("web") == ["10.0.0.5 1"]


def test_a_backend_that_moves(tmp_path: Path, scene: Scene) -> None:
    """A backend that two sources may not have at once is applied after the first has dropped it."""
    text = CONF.replace("DIR", str(tmp_path)).replace("83, backends", "80, backends")
    text = text.replace(
        "ports: 80, backends: {file", "ports: 80, forward: offload, backends: {file"
    )
    config = parse(text, "conf").config
    controller = Controller(
        gathered(config, read_files(parse(text, "conf")), [], scene.said.append, DnsCache())
    )
    sources = source_input(controller, config, lambda: scene.now)
    sources.handle(DnsUpdate(name=A, records=records("10.0.0.1 80 1"), ttl=30))
    assert controller.backends("dns") == []
    assert "10.0.0.1" in scene.log.why[0]
    scene.file.write_text("10.0.0.2\n")
    sources.handle(FileChanged(file=str(scene.file)))
    assert (controller.backends("web"), controller.backends("dns")) == (
        ["10.0.0.2 1"],
        ["10.0.0.1 1"],
    )


def test_news_of_what_is_no_source_any_more(scene: Scene) -> None:
    """They are late, and mean nothing."""
    before = scene.controller.store.listed
    scene.answer("10.0.0.3 83 1", name=DnsName("_b._tcp.example", "", 4))
    scene.sources.handle(DnsFailure(name=DnsName("_b._tcp.example", "", 4), why="no"))
    scene.sources.handle(FileChanged(file="/etc/other"))
    assert scene.controller.store.listed is before
    assert scene.log.lines == []


def test_other_name_servers_are_a_new_order(scene: Scene, tmp_path: Path) -> None:
    """The monitor cannot read /etc/resolv.conf, so it gets the new text in a message."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    sources = SourceInput(
        *(scene.controller.store, scene.controller.apply_config),
        *(origins(scene.loaded.config), lambda: scene.now),
        resolv_conf=ResolvConf(path),
    )
    assert sources.order().resolv_conf == "nameserver 192.0.2.1\n"
    path.write_text("nameserver 192.0.2.99\n")
    changes = 0
    for _ in range(4):
        scene.now += sources.turn(scene.now) or PAUSE
        changes += sources.order_changed(scene.now)
    assert changes == 1
    assert sources.order().resolv_conf == "nameserver 192.0.2.99\n"


def test_answers_are_kept_once_they_are_taken_over(scene: Scene) -> None:
    """At the start and later; refused answers are not stored, and answers of removed names are
    dropped.
    """
    kept = DnsCache()
    good = [DnsUpdate(name=A, records=records("10.0.0.3 83 1"), ttl=30)]
    gathered(scene.loaded.config, read_files(scene.loaded), good, scene.said.append, kept)
    assert kept.get(A) == good[0]
    scene.sources = source_input(scene.controller, scene.loaded.config, lambda: scene.now, kept)
    scene.answer("10.0.0.4 83 1")
    after = kept.get(A)
    assert after is not None
    assert after.records == records("10.0.0.4 83 1")
    scene.controller.refuses = "not now"
    scene.answer("10.0.0.5 83 1")
    assert kept.get(A) == after
    scene.controller.refuses = ""
    scene.now += RETRY
    scene.sources.turn(scene.now)
    assert kept.get(A) != after
    scene.sources.apply_config(scene.loaded.config.model_copy(update={"services": ()}))
    assert kept.get(A) is None


def test_a_reload(scene: Scene) -> None:
    """A file that is read again has the known lists of its names, and those of its files."""
    scene.answer("10.0.0.3 83 1")
    scene.file.write_text("10.0.0.6\n")
    wanted = scene.sources.prepared(scene.loaded.config, read_files(scene.loaded))
    assert Controller(wanted).backends("dns") == ["10.0.0.3 1"]
    assert Controller(wanted).backends("web") == ["10.0.0.6 1"]
    assert Controller(wanted).backends("six") == []
    scene.controller.apply_config(wanted, "reload")
    scene.sources.apply_config(scene.loaded.config)
    scene.answer("10.0.0.4 83 1")
    assert scene.controller.backends("dns") == ["10.0.0.4 1"]


def test_news_that_come_too_fast_are_taken_over_once(scene: Scene) -> None:
    """Of a source that changes constantly the newest list is applied, and
    others are not delayed.
    """
    scene.answer("10.0.0.3 83 1")
    for number in range(100):
        scene.sources.handle(DnsUpdate(name=A, records=records(f"10.0.1.{number} 83 1"), ttl=30))
    scene.file.write_text("10.0.0.9\n")
    scene.sources.handle(FileChanged(file=str(scene.file)))
    assert scene.controller.backends("web") == ["10.0.0.9 1"]
    before = len(scene.controller.requested_by)
    pause = scene.sources.turn(scene.now)
    assert 0 < pause <= SETTLED
    scene.now += pause
    scene.sources.turn(scene.now)
    assert len(scene.controller.requested_by) == before + 1
    assert scene.controller.backends("dns") == ["10.0.1.99 1"]
