"""``paraglider lab``: its refusals and messages."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from paraglider.cli.lab import lab
from paraglider.errors import OperatorError


def test_without_root_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root it is refused before anything is created."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(lab, [])
    assert isinstance(result.exception, OperatorError)
    assert str(result.exception).endswith("needs root; use sudo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--forward", "teleport"],
        ["--carrier", "dove"],
        ["--workers", "0"],
        ["--backends", "many"],
        ["--connections", "-1"],
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
