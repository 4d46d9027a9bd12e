"""Tests of ``paraglider.config.places``: where the file is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from paraglider.config.places import find_config
from paraglider.errors import OperatorError


def test_find_config_takes_the_given_then_the_first_that_exists(tmp_path: Path) -> None:
    """-c takes precedence; otherwise the first path with a file is used."""
    first, second = tmp_path / "a", tmp_path / "b"
    assert find_config("given") == Path("given")
    second.touch()
    assert find_config(None, (first, second)) == second
    first.touch()
    assert find_config(None, (first, second)) == first


def test_find_config_without_any_names_the_places(tmp_path: Path) -> None:
    """The message lists the searched paths, and the option."""
    with pytest.raises(OperatorError, match=r"there is no ./x or /.*/y; .* -c FILE"):
        find_config(None, (Path("x"), tmp_path / "y"))


def test_default_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, then our file of the host, then the one of the Go Paraglider."""
    ours, theirs = Path("/etc/paraglider/paraglider.conf"), Path("/etc/paraglider/glider.yaml")
    there = {Path("paraglider.conf"), ours, theirs}
    monkeypatch.setattr(Path, "exists", lambda path: path in there)
    for expected in (Path("paraglider.conf"), ours, theirs):
        assert find_config() == expected
        there.remove(expected)
    with pytest.raises(OperatorError):
        find_config()
