"""``paraglider lab``: what it refuses, and what it says."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from paraglider.cli.lab import lab
from paraglider.errors import OperatorError


def test_without_root_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody but root is told so before anything is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(lab, [])
    assert isinstance(result.exception, OperatorError)
    assert str(result.exception).endswith("needs root; use sudo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--forward", "teleport"],
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
    """Two connections cannot show three backends at work: said before anything is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = CliRunner().invoke(lab, ["--connections", "2"])
    assert isinstance(result.exception, OperatorError)
    assert "--connections" in result.exception.remedy
