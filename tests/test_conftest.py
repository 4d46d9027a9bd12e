"""What all tests share: the same examples at every run, and the screen of a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis.internal.conjecture import providers


def test_examples_do_not_depend_on_what_was_tested_before() -> None:
    """Properties draw no constants of the modules that are imported by chance."""
    if settings.get_current_profile_name() != "explore":
        assert len(providers._get_local_constants()) == 0


def test_a_screen_that_comes_in_pieces(in_terminal: Callable[..., Any]) -> None:
    """It is the same wherever a read ends: within an escape sequence or a character, too."""
    said = "\x1b[?1049h\x1b[?25l\x1b[1;1Hone ü\x1b[2;1Htwo\x1b[?25h\x1b[?1049l".encode()
    screen = in_terminal(["true"])
    for cut in range(len(said) + 1):
        screen._take(said[:cut])
        screen._take(said[cut:])
        assert (screen.lines, screen.said) == (["one ü", "two"], "")
        assert (screen.taken, screen.cursor) == (False, True)
