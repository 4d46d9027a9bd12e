"""Counting the results of connections between two moments."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab import load_clients
from paraglider.lab.load_clients import LoadClients, LoadResult


class Air:
    """A client whose processes do nothing: a test writes their output."""

    client: Any

    def __init__(self) -> None:
        self.client = self
        self.ended = 0

    def popen(self, _command: Any, **_streams: Any) -> Air:
        """A process."""
        return self

    def kill(self) -> None:
        """Kill it."""
        self.ended += 1

    def wait(self) -> None:
        """It has exited."""


@pytest.fixture
def made(tmp_path: Path) -> LoadClients:
    """Results without clients."""
    return LoadClients(Air(), tmp_path, 80)  # type: ignore[arg-type]


def say(directory: Path, family: int, *results: str, cut: str = "") -> None:
    """Results of one family's client: backends, or errors that begin with a bang."""
    with (directory / f"load{family}").open("a") as file:
        for result in results:
            key = "error" if result.startswith("!") else "answer"
            file.write(json.dumps({key: result.removeprefix("!")}) + "\n")
        file.write(cut)


def test_between_moments(made: LoadClients, tmp_path: Path) -> None:
    """Each try counts where it ended; an incomplete line does not count."""
    say(tmp_path, 4, "backend1", "!refused")
    begin = made.now()
    say(tmp_path, 4, "backend2", "!refused", "!timed out")
    say(tmp_path, 6, "backend1", cut='{"answ')
    end = made.now()
    say(tmp_path, 4, "backend3")
    found = made.between(begin, end)
    assert found == LoadResult(
        Counter({"backend1": 1, "backend2": 1}), Counter({"refused": 1, "timed out": 1})
    )
    assert (found.tries, found.failed) == (4, 2)
    assert found.summary() == "backend1 1 · backend2 1 · failed 2"
    assert made.between(end).summary() == "backend3 1 · failed 0"


def test_the_next_tries_are_those_that_start_then(
    made: LoadClients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try to end had begun before, in each family, and is not counted."""

    def more(_seconds: float) -> None:
        for family in (4, 6):
            say(tmp_path, family, "!late", "backend1", "backend2", "backend3")

    monkeypatch.setattr(load_clients.time, "sleep", more)
    assert made.next(2).summary() == "backend1 2 · backend2 2 · failed 0"


def test_tries_that_do_not_come(made: LoadClients, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout raises an error."""
    monkeypatch.setattr(load_clients, "TIMEOUT", 0.0)
    with pytest.raises(PlatformError, match="did not end 5 connections"):
        made.next(5)


def test_stop(tmp_path: Path) -> None:
    """Both families' clients are ended."""
    air = Air()
    LoadClients(air, tmp_path, 80).stop()  # type: ignore[arg-type]
    assert air.ended == 2
