"""The terminal is restored in its former state, however the program ends."""

from __future__ import annotations

import sys
from typing import Any

import pytest

BEGIN = """
from rich.text import Text
from paraglider.cli.terminal import Terminal, usable
assert usable()
with Terminal() as terminal:
    terminal.draw([Text("first"), Text("[b] last")])
"""


def program(*lines: str) -> list[str]:
    """A program that draws two lines and then runs ``lines``."""
    return [sys.executable, "-c", BEGIN + "".join(f"    {line}\n" for line in lines)]


def test_keys_come_one_by_one_and_unseen(in_terminal: Any) -> None:
    """A key needs no return, and an escape sequence is one key."""
    screen = in_terminal(
        program(
            "keys = []",
            "while 'q' not in keys: keys += terminal.read_keys(terminal.keys)",
            "terminal.leave(); print(keys)",
        )
    )
    screen.until(
        lambda: screen.taken and screen.lines[:2] == ["first".ljust(80), "[b] last".ljust(80)]
    )
    assert not screen.cursor
    screen.press("a\x1b[A\x1b[6~")
    screen.press("éq")
    assert screen.end() == 0
    assert screen.said.strip() == "['a', '\\x1b[A', '\\x1b[6~', 'é', 'q']"


@pytest.mark.parametrize(
    ("last", "code"), [("pass", 0), ("raise ValueError('broken')", 1), ("raise SystemExit(7)", 7)]
)
def test_it_is_given_back(in_terminal: Any, last: str, code: int) -> None:
    """Its settings, its screen, its cursor; an error message is visible."""
    screen = in_terminal(program(last))
    assert screen.end() == code
    assert screen.settings == screen.settings_before
    assert (screen.taken, screen.cursor) == (False, True)
    assert ("ValueError: broken" in screen.said) == (code == 1)


def test_a_dumb_terminal_and_none_are_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No full-screen mode without a terminal."""
    from paraglider.cli.terminal import usable

    assert not usable()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert not usable()
