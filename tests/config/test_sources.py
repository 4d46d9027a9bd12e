"""Tests of ``paraglider.config.sources``: backends from files, judged like those of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.config.diagnostics import ConfigError
from paraglider.config.load import LoadedConfig, parse
from paraglider.config.model import BackendConfig
from paraglider.config.sources import read_files, refusals, resolved

CONF = """\
network: {private: {interface: eth1, gateway: [10.0.0.254/8]}, public: {interface: eth0}}
services:
  - {name: web, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: {file: DIR/web}}
  - {name: api, vip: 192.168.0.12/24, protocol: tcp, ports: 81, backends: {file: DIR/api}}
  - {name: own, vip: 192.168.0.13/24, protocol: tcp, ports: 82, backends: [10.0.0.7]}
  - {name: dns, vip: 192.168.0.14/24, protocol: tcp, ports: 83, backends: {dns: _a._tcp.example}}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    """A configuration with two files of backends, which both list one."""
    (tmp_path / "web").write_text("10.0.0.1\n10.0.0.2:8080 weight=3\n")
    (tmp_path / "api").write_text("10.0.0.3\n")
    return parse(CONF.replace("DIR", str(tmp_path)), "conf")


def mistakes(loaded: LoadedConfig) -> list[str]:
    """The problems of the files."""
    with pytest.raises(ConfigError) as caught:
        read_files(loaded)
    return list(caught.value.lines)


def test_files_are_read(loaded: LoadedConfig) -> None:
    """The configuration equals one that lists the backends; other services stay."""
    config = resolved(loaded.config, read_files(loaded))
    assert [[(str(b.address), b.port) for b in s.backends] for s in config.services] == [
        [("10.0.0.1", None), ("10.0.0.2", 8080)],
        [("10.0.0.3", None)],
        [("10.0.0.7", None)],
        [],
    ]
    assert [s.source is None for s in config.services] == [True, True, True, False]


@pytest.mark.root
def test_a_link_to_what_only_root_reads(loaded: LoadedConfig, tmp_path: Path) -> None:
    """Messages about it name the line, and no word of it."""
    (tmp_path / "shadow").write_text("root:$6$secret:19000\n10.0.0.1 weight=secret\n")
    (tmp_path / "shadow").chmod(0o600)
    (tmp_path / "web").unlink()
    (tmp_path / "web").symlink_to("shadow")
    lines = mistakes(loaded)
    assert [line.partition(" ")[0] for line in lines] == [
        f"{tmp_path}/web:1:1:",
        f"{tmp_path}/web:2:10:",
    ]
    assert "secret" not in "".join(lines)
    assert "may not read the file" in lines[0]


def test_what_contradicts_the_configuration(loaded: LoadedConfig, tmp_path: Path) -> None:
    """A list is validated as part of the configuration, and mistakes have its line and column."""
    (tmp_path / "web").write_text("# all of them\n  192.168.0.11\n10.0.0.1\n10.0.0.1\n")
    (tmp_path / "api").write_text("10.0.0.3\nfd00::1\n")
    lines = mistakes(loaded)
    assert lines[0].startswith(f"{tmp_path}/web:2:3: backend 192.168.0.11 is the VIP itself")
    assert lines[1].startswith(f"{tmp_path}/web:4:1: backend 10.0.0.1 port 80 appears twice")
    assert lines[2].startswith(f"{tmp_path}/api:2:1: backend fd00::1 is IPv6")
    assert len(lines) == 3


def test_what_another_section_contradicts(loaded: LoadedConfig, tmp_path: Path) -> None:
    """A contradiction with another section is reported there."""
    (tmp_path / "api").write_text("10.0.0.254\n")
    (line,) = mistakes(loaded)
    assert line.startswith("conf:1:48: gateway 10.0.0.254 is also a backend of `api`")


def test_mistakes_of_all_files_are_reported(loaded: LoadedConfig, tmp_path: Path) -> None:
    """A missing file, and the mistakes of another, are reported together."""
    (tmp_path / "web").unlink()
    (tmp_path / "api").write_text("x\n10.0.0.3 weight=x\n")
    lines = mistakes(loaded)
    assert lines[0].startswith(f"{tmp_path}/web: there is no such file; write it, or name another")
    assert [line.partition(" ")[0] for line in lines[1:]] == [
        f"{tmp_path}/api:1:1:",
        f"{tmp_path}/api:2:10:",
    ]


def test_no_weight_at_all(loaded: LoadedConfig, tmp_path: Path) -> None:
    """A file whose backends take no flow is refused like a list."""
    (tmp_path / "api").write_text("10.0.0.3 weight=0\n")
    (line,) = mistakes(loaded)
    assert line.startswith(f"{tmp_path}/api:1:1: every backend has weight 0")


def test_one_file_for_two_services(tmp_path: Path) -> None:
    """A mistake in a file of two services is reported once."""
    (tmp_path / "all").write_text("10.0.0.256\n")
    text = CONF.replace("DIR/web", str(tmp_path / "all")).replace("DIR/api", str(tmp_path / "all"))
    assert len(mistakes(parse(text, "conf"))) == 1


def test_refusals(loaded: LoadedConfig) -> None:
    """None for valid lists, some for invalid ones."""
    own = loaded.config.services[2].backends
    assert not refusals(loaded.config, {"web": own})
    vip = (BackendConfig(address=loaded.config.services[0].vip.ip),)
    assert [problem.path for problem in refusals(loaded.config, {"web": vip})] == [
        ("services", 0, "backends", 0, "address")
    ]
