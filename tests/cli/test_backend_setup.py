"""Tests of ``paraglider.cli.backend_setup``: its output and its refusals; nothing is changed.

Its effect on a host is tested in ``tests/net/test_backend_setup.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paraglider.cli.errors import run_command
from paraglider.cli.main import main

TEXT = """\
network: {private: {interface: eth1, gateway: [10.0.0.254/8]}}
services:
  - {name: web, vip: 192.168.0.11/24, protocol: tcp, ports: 80, return: direct,
     backends: [203.0.113.1, 203.0.113.2]}
  - {name: mapped, vip: 192.168.0.11/24, protocol: tcp, ports: 81, return: direct,
     backends: [{address: 203.0.113.1, port: 8081}]}
  - {name: relay, vip: 192.168.0.11/24, protocol: tcp, ports: 82, forward: proxy,
     backends: [203.0.113.1]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A valid file."""
    path = tmp_path / "c"
    path.write_text(TEXT)
    return path


def outcome(file: Path, *arguments: str) -> Any:
    """The exit code of `paraglider backend-setup` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", ["backend-setup", "-c", str(file), *arguments])
    return caught.value.code


def test_the_script_of_a_backend(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """The backends, the reason, the commands with their purpose, and the commands of the undo."""
    assert outcome(file, "web", "relay", "--backend", "203.0.113.1") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "#!/bin/sh -e"
    assert (
        lines[2]
        == "# Backend 203.0.113.1 of `web`: VIP 192.168.0.11, forward: nat, return: direct."
    )
    assert "# table ip paraglider-backend-web: answers leave as the VIP" in lines
    assert "# delete table ip paraglider-backend-web" in lines
    assert any("203.0.113.1 tcp sport 80 ip saddr set 192.168.0.11" in line for line in lines)
    assert lines[-3].startswith("# Backend 203.0.113.1 of `relay`")
    assert lines[-1] == "# Nothing to do."


def test_what_services_share_is_made_once(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two dsr services on one VIP: a shell that runs the script adds the address once."""
    file = tmp_path / "c"
    rest = "vip: 192.168.0.11/24, protocol: tcp, forward: dsr, backends: [203.0.113.1]"
    file.write_text(
        "network: {public: {interface: eth0}, private: {interface: eth1}}\n"
        f"services:\n  - {{name: a, ports: 80, {rest}}}\n  - {{name: b, ports: 81, {rest}}}\n"
    )
    assert outcome(file, "a", "b", "--backend", "203.0.113.1") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines.count("ip address add 192.168.0.11/32 dev lo") == 1
    assert lines.count("# Done above: address 192.168.0.11/32 on lo") == 1
    assert lines.count("# To undo it:") == 1


def test_the_tc_form(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """The same for tc, with the interface to be named."""
    assert outcome(file, "web", "--backend", "203.0.113.2", "--tc") == 0
    out = capfd.readouterr().out
    assert "\nDEV=" in out
    assert "match ip src 203.0.113.2/32" in out
    assert "action nat egress 203.0.113.2/32 192.168.0.11" in out
    assert "nft" not in out


@pytest.mark.parametrize(
    ("arguments", "what", "remedy"),
    [
        (["--apply", "--undo"], "exclude each other", "one of them"),
        (["web", "--tc", "--apply"], "exclude each other", "one of them"),
        ([], "no SERVICE given", "web, mapped, relay"),
        (["wbe"], "there is no service 'wbe'", "did you mean web? the services of"),
        (["zzzzzz"], "there is no service 'zzzzzz'", ": web, mapped, relay"),
        (["web", "--backend", "x"], "--backend 'x' is not an IP address", "one of the service's"),
        (
            ["web", "--backend", "203.0.113.9"],
            "has no backend 203.0.113.9",
            "203.0.113.1, 203.0.113.2",
        ),
        (["web"], "this host is no backend of `web`", "--backend ADDRESS"),
        (["relay", "--backend", "203.0.113.1", "--tc"], "no answers to rewrite", "leave --tc out"),
        (["mapped", "--backend", "203.0.113.1", "--tc"], "maps no ports", "nft does it"),
        (["web", "--decapsulation", "bpf"], "no meaning for web, without `forward: tunnel`", "out"),
        (["web", "--decapsulation", "auto", "--tc"], "no meaning with --tc", "leave it out"),
        (["--undo", "--decapsulation", "kernel"], "no meaning with --undo", "leave it out"),
    ],
)
def test_what_is_refused(
    capfd: pytest.CaptureFixture[str], file: Path, arguments: list[str], what: str, remedy: str
) -> None:
    """One line each, with the mistake and the remedy."""
    assert outcome(file, *arguments) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert what in line
    assert remedy in line


def test_changing_the_host_needs_root(
    capfd: pytest.CaptureFixture[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printing does not."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for arguments in (["web", "--backend", "203.0.113.1", "--apply"], ["--undo"]):
        assert outcome(file, *arguments) == 1
        assert "needs root" in capfd.readouterr().err
    assert outcome(file, "web", "--backend", "203.0.113.1") == 0
