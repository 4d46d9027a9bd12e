"""Full-screen mode of a terminal: the alternate screen and single keys, restored on exit.

Lives here: ``Terminal``.
Rules: ``__exit__`` always restores the terminal, and ignores one that was closed. Keys are read
only if standard input is a terminal too.
"""

from __future__ import annotations

import os
import re
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group
from rich.text import Text

#: one key: an escape sequence of a cursor key (ECMA-48 CSI, or SS3), or a character
_KEY: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


class Terminal:
    """Standard output as a screen, standard input as keys; a context manager."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False)
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    @property
    def keys(self) -> int | None:
        """The descriptor of the keyboard; None if there is none."""
        return sys.stdin.fileno() if self._before is not None else None

    def enter(self) -> None:
        """Switch to full-screen mode."""
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def leave(self) -> None:
        """Restore the terminal."""
        try:
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)
            if self._before is not None:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
        except (OSError, termios.error):  # the terminal was closed
            return

    @property
    def size(self) -> tuple[int, int]:
        """The present number of columns and lines."""
        found = os.get_terminal_size(sys.stdout.fileno())
        return max(found.columns, 1), max(found.lines, 1)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show ``lines``, which must fill the screen."""
        columns, rows = self.size
        self._console.size = (columns, rows)
        self._console.update_screen(Group(*lines))

    @staticmethod
    def read_keys(descriptor: int) -> list[str]:
        """The keys that were pressed; empty if the terminal was closed."""
        try:
            return _KEY.findall(os.read(descriptor, 1024).decode(errors="replace"))
        except OSError:
            return []


def usable() -> bool:
    """Whether standard output is a terminal with full-screen mode."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal
