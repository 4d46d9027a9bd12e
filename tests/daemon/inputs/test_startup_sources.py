"""Tests of ``daemon.inputs.startup_sources``: the lists at a start, and its messages."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from paraglider.config.diagnostics import ConfigError
from paraglider.config.load import LoadedConfig, parse
from paraglider.config.model import Config
from paraglider.config.sources import read_files
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.startup_sources import backends_of, dns_names_in, gathered, validate
from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate
from paraglider.host.dns_records import Record

CONF = """\
network: {private: {interface: eth1, gateway: [10.0.0.254/8]}, public: {interface: eth0}}
services:
  - {name: web, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: {file: DIR/web}}
  - {name: dns, vip: 192.168.0.14/24, protocol: tcp, ports: 83, backends: {dns: _a._tcp.example}}
  - {name: same, vip: 192.168.0.15/24, protocol: tcp, ports: 83, backends: {dns: _a._tcp.example}}
  - {name: own, vip: 192.168.0.13/24, protocol: tcp, ports: 82, backends: [10.0.0.7]}
  - {name: six, vip: 2001:db8::11, protocol: tcp, ports: 83,
     backends: {dns: _a._tcp.example, server: "127.0.0.1:8600"}}
"""
A = DnsName("_a._tcp.example", "", 4)
SIX = DnsName("_a._tcp.example", "127.0.0.1:8600", 6)
NONE = "has no backends until there are some"


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    """CONF, whose file lists one backend."""
    (tmp_path / "web").write_text("10.0.0.1\n")
    return parse(CONF.replace("DIR", str(tmp_path)), "conf")


def records(*addresses: str) -> tuple[Record, ...]:
    """One record each, at the services' port."""
    return tuple(Record(ipaddress.ip_address(address), 83, 1) for address in addresses)


def backends(config: Config, name: str) -> list[str]:
    """Those of a service."""
    (service,) = (s for s in config.services if s.name == name)
    return [b.name for b in service.backends]


def test_a_start_without_the_dns(loaded: LoadedConfig) -> None:
    """Services start without backends, with a message; files are read."""
    said: list[str] = []
    begun = gathered(loaded.config, read_files(loaded), [], said.append, DnsCache())
    shown = {name: backends(begun, name) for name in ("web", "dns", "same", "own", "six")}
    assert shown == {"web": ["10.0.0.1"], "dns": [], "same": [], "own": ["10.0.0.7"], "six": []}
    assert said == [
        f"DNS _a._tcp.example: no answer; `dns` {NONE}",
        f"DNS _a._tcp.example: no answer; `same` {NONE}",
        f"DNS _a._tcp.example at 127.0.0.1:8600: no answer; `six` {NONE}",
    ]


def test_a_start_with_the_dns(loaded: LoadedConfig) -> None:
    """Valid answers are used from the start; a name is queried once."""
    config, files, said = loaded.config, read_files(loaded), list[str]()
    assert dns_names_in(config) == [A, SIX]
    answers = [
        DnsUpdate(name=A, records=records("10.0.0.3"), ttl=30),
        DnsFailure(name=SIX, why="refused"),
    ]
    begun = gathered(config, files, answers, said.append, DnsCache())
    assert backends(begun, "dns") == backends(begun, "same") == ["10.0.0.3"]
    assert said == [f"DNS _a._tcp.example at 127.0.0.1:8600: refused; `six` {NONE}"]
    bad = [DnsUpdate(name=A, records=records("192.168.0.14"), ttl=30)]
    said.clear()
    begun = gathered(config, files, bad, said.append, DnsCache())
    assert backends(begun, "dns") == []
    assert "is the VIP itself" in said[0]


def test_a_start_with_what_was_answered_before(loaded: LoadedConfig) -> None:
    """If the DNS does not answer, or not validly; cached answers that are no longer valid are left
    out.
    """
    config, files, said = loaded.config, read_files(loaded), list[str]()
    for news in (
        [],
        [DnsFailure(name=A, why="refused")],
        [DnsUpdate(name=A, records=records("192.168.0.14"), ttl=30)],
    ):
        kept = DnsCache()
        kept.add(DnsUpdate(name=A, records=records("10.0.0.3"), ttl=30))
        said.clear()
        begun = gathered(config, files, news, said.append, kept)
        assert backends(begun, "dns") == ["10.0.0.3"]
        assert said[0].endswith("; `dns` begins with what it answered last")
        assert backends(begun, "six") == []
    kept = DnsCache()
    kept.add(DnsUpdate(name=A, records=records("192.168.0.14"), ttl=30))
    begun = gathered(config, files, [], said.append, kept)
    assert backends(begun, "dns") == []


def test_a_list_that_contradicts_the_configuration(loaded: LoadedConfig) -> None:
    """One line, with the number of further mistakes."""
    service = loaded.config.services[1]
    validate(loaded.config, "dns", backends_of(service, records("10.0.0.3")))
    bad = backends_of(service, records("192.168.0.14", "fd00::1"))
    with pytest.raises(ConfigError, match=r"is the VIP itself.* \(and \d+ more\)"):
        validate(loaded.config, "dns", bad)
