"""Programs of others: they are started, and asked until they answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab import programs
from paraglider.lab.programs import start_and_await

ASKING = ["ask", "it"]


class Host:
    """A namespace whose program prints something, and runs for ``lasts`` questions; it answers the
    question ``answers``.
    """

    name = "pg1-lb2"

    def __init__(self, *, lasts: int = 99, answers: int = 99) -> None:
        self._lasts, self._answers = lasts, answers
        self.asked = 0

    def popen(self, command: list[str], *, stdout: Any, stderr: Any) -> Host:
        """The program."""
        assert command == ["program", "-f"]
        assert stdout is stderr
        stdout.write(b"hello\n")
        return self

    def run(self, command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        """A question."""
        assert (command, check) == (ASKING, False)
        self.asked += 1
        return subprocess.CompletedProcess(command, int(self.asked != self._answers))

    def poll(self) -> int | None:
        """Whether the program has ended."""
        return None if self.asked < self._lasts else 1


@pytest.fixture
def starting(tmp_path: Path) -> Callable[[Any], object]:
    """A function that starts the program of a host."""
    return lambda host: start_and_await(host, ["program", "-f"], ASKING, tmp_path / "out")


def test_it_is_asked_until_it_answers(starting: Callable[[Any], object], tmp_path: Path) -> None:
    """What it has printed is in the file, also that of a run before."""
    for run in (1, 2):
        host = Host(answers=3)
        assert starting(host) is host
        assert host.asked == 3
        assert (tmp_path / "out").read_text() == "hello\n" * run


@pytest.mark.parametrize("host", [Host(lasts=2), Host()], ids=["ends", "hangs"])
def test_one_that_never_answers(
    starting: Callable[[Any], object], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended, or has not answered in time: the error says where its output is."""
    monkeypatch.setattr(programs, "TIMEOUT", 0.1)
    with pytest.raises(PlatformError, match=r"program in pg1-lb2 does not answer; see .*/out"):
        starting(host)
