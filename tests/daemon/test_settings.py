"""The configuration from a file and the options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paraglider.config.check import STEP
from paraglider.config.diagnostics import ConfigError
from paraglider.daemon import settings as module
from paraglider.daemon.settings import Settings

FILE = """\
user: nobody
queue: {length: 100}
services:
  - {name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, backends: [10.0.0.1]}
  - {name: b, vip: "2001:db8::1/64", protocol: tcp, ports: 80, backends: ["fd00::1"]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a service of each family."""
    path = tmp_path / "paraglider.conf"
    path.write_text(FILE)
    return path


def test_the_file_alone(file: Path) -> None:
    """Without options the file decides."""
    config = Settings(file).read().config
    assert [service.name for service in config.services] == ["a", "b"]
    assert (config.user, config.queue.length, config.failover.enabled) == ("nobody", 100, False)


def test_a_long_file_is_read_in_steps(file: Path) -> None:
    """Other work can be done between them: no step checks more than a part of the services."""
    head, *_ = FILE.partition("  - ")
    line = "  - {{name: s{0}, vip: 192.0.{1}.{2}/16, protocol: tcp, backends: [10.0.0.1]}}\n"
    file.write_text(head + "".join(line.format(n, n // 250, 1 + n % 250) for n in range(500)))
    assert sum(1 for _ in Settings(file).reading()) >= 500 // STEP + 4


def test_options_go_before_the_file(file: Path) -> None:
    """At every reading."""
    settings = Settings(file, frozenset({6}), failover=True, queue_length=7, user="daemon")
    for text in (FILE, FILE.replace("fd00::1", "fd00::2")):
        file.write_text(text)
        config = settings.read().config
        assert [service.name for service in config.services] == ["b"]
        assert (config.user, config.queue.length, config.failover.enabled) == ("daemon", 7, True)
    assert str(config.services[0].backends[0].address) == "fd00::2"


def test_the_digests_are_of_the_file_with_the_options(file: Path) -> None:
    """They follow a change of either."""
    before, with_option = (
        Settings(file).read().digests,
        Settings(file, failover=True).read().digests,
    )
    assert {name for name in before if before[name] != with_option[name]} == {"failover"}
    file.write_text(FILE.replace("fd00::1", "fd00::2"))
    after = Settings(file).read().digests
    assert {name for name in before if before[name] != after[name]} == {"services"}


def test_every_mistake_has_its_place(file: Path) -> None:
    """And the file's name."""
    file.write_text(FILE.replace("80", "eighty"))
    with pytest.raises(ConfigError) as caught:
        Settings(file).read()
    assert [line.startswith(f"{file}:") for line in caught.value.lines] == [True, True]


def test_services_that_hash_have_the_seed_of_the_host(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every reading, unless the file has one; a failure to store it is a warning."""

    def drawn(say: Callable[[str], None]) -> int:
        say("not kept")
        return 1 << 63

    monkeypatch.setattr(module, "machine_seed", drawn)
    file.write_text(
        FILE.replace("ports: 80, backends: [10", "ports: 80, strategy: source, backends: [10")
    )
    for _ in range(2):
        read = Settings(file).read()
        assert [service.seed for service in read.config.services] == [1 << 63, None]
        assert read.warnings == ("not kept",)
    file.write_text(file.read_text().replace("strategy: source", "strategy: source, seed: 9"))
    assert Settings(file).read().config.services[0].seed == 9


def test_the_seed_of_the_file_needs_none_of_the_host(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a host that cannot store one has no warning."""
    monkeypatch.setattr(module, "machine_seed", lambda _say: pytest.fail("was read"))
    file.write_text(f"seed: 7\n{FILE.replace('ports: 80', 'ports: 80, strategy: maglev')}")
    read = Settings(file).read()
    assert [service.seed for service in read.config.services] == [7, 7]
    assert read.warnings == ()
