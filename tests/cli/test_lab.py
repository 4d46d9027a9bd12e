"""``paraglider lab``: its refusals and messages."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from click.testing import CliRunner

from paraglider.cli.lab import lab
from paraglider.errors import OperatorError
from paraglider.lab.fleet_scenario import FleetLab

MODULE = importlib.import_module("paraglider.cli.lab")


def test_without_root_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root it is refused before anything is created."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/sudo")
    result = CliRunner().invoke(lab, [])
    assert isinstance(result.exception, OperatorError)
    assert str(result.exception).endswith("needs root; run it as root: sudo paraglider lab")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--forward", "teleport"],
        ["--carrier", "dove"],
        ["--workers", "0"],
        ["--backends", "many"],
        ["--connections", "-1"],
        ["--balancers", "1"],
    ],
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    """A way of forwarding that is not there, or a number out of range, is a usage error."""
    result = CliRunner().invoke(lab, arguments)
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def test_fewer_connections_than_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two connections cannot reach three backends: refused before anything is created."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = CliRunner().invoke(lab, ["--connections", "2"])
    assert isinstance(result.exception, OperatorError)
    assert "--connections" in result.exception.remedy


def test_programs_in_sbin_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `su` keeps the PATH of a user: BIRD and keepalived are installed there."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    searched = []

    class Noted(FleetLab):
        def run(self) -> bool:
            searched.append(os.environ["PATH"].split(":"))
            return True

    monkeypatch.setattr(MODULE, "FleetLab", Noted)
    for path in ("/usr/bin", "/usr/bin:/usr/sbin:/sbin"):
        monkeypatch.setenv("PATH", path)
        assert CliRunner().invoke(lab, ["--balancers", "2"]).exit_code == 0
    assert searched == [["/usr/bin", "/usr/sbin", "/sbin"]] * 2


@pytest.mark.parametrize(
    "options",
    [
        ["--balancers", "3", "--pair"],
        ["--balancers", "3", "--keep"],
        ["--balancers", "3", "--forward", "proxy"],
        ["--pair", "-f"],
        ["--pair", "--forward", "tunnel"],
    ],
)
def test_options_of_different_labs(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """They are refused with a remedy before anything is created."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = CliRunner().invoke(lab, options)
    assert isinstance(result.exception, OperatorError)
    assert result.exception.remedy


@pytest.mark.parametrize(
    ("options", "chosen", "connections"),
    [
        ([], "Lab", 30),
        (["-f"], "FailoverLab", 30),
        (["--balancers", "3"], "FleetLab", 60),
        (["--pair"], "PairLab", 60),
        (["--pair", "--connections", "8"], "PairLab", 8),
    ],
)
def test_which_lab_runs(
    monkeypatch: pytest.MonkeyPatch, options: list[str], chosen: str, connections: int
) -> None:
    """With its number of connections; one with faults fails."""
    ran: list[tuple[str, int]] = []

    def fake(name: str) -> Any:
        class Fake:
            def __init__(self, given: Any, _console: object) -> None:
                ran.append((name, given.connections))

            def run(self) -> bool:
                return False

        return Fake

    for name in ("FailoverLab", "FleetLab", "PairLab"):
        monkeypatch.setattr(MODULE, name, fake(name))
    monkeypatch.setattr(MODULE.scenario, "Lab", fake("Lab"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert CliRunner().invoke(lab, options).exit_code == 1
    assert ran == [(chosen, connections)]
