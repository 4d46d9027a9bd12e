"""The text of man pages in man(7)'s macros, which groff and mandoc both set.

Lives here: ``Page``. Rules: whatever it is given is text, never markup; only a word in backticks
becomes bold.
"""

from __future__ import annotations

import re
import textwrap

#: columns of a line of the source
_WIDTH = 78
_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-"})


def escaped(text: str) -> str:
    """``text`` on one line, without any meaning to roff; words in backticks in bold."""
    line = " ".join(text.split()).translate(_ESCAPES)
    return _guarded(re.sub(r"`([^`]+)`", r"\\fB\1\\fR", line))


def _guarded(line: str) -> str:
    """``line`` as text, though it may begin as a macro does."""
    return rf"\&{line}" if line[:1] in {".", "'"} else line


class Page:
    """A page that grows from the top; ``str`` gives it as it stands."""

    def __init__(self, name: str, section: int, about: str, version: str, date: str) -> None:
        self.name = name
        self.section = section
        self._lines = [
            r".\" Made by paraglider.cli.man from what the program says of itself.",
            f'.TH "{escaped(name).upper()}" "{section}" "{date}" "paraglider {version}" ""',
            ".nh",
            ".ad l",
        ]
        self.heading("Name")
        self._lines.append(rf"{escaped(name)} \- {escaped(about)}")

    @property
    def file(self) -> str:
        """The name of its file, below the folder for man pages."""
        return f"man{self.section}/{self.name}.{self.section}"

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{escaped(text).upper()}"')

    def subheading(self, text: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{escaped(text)}"')

    def text(self, text: str) -> None:
        """Paragraphs, with an empty line between two of them."""
        for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text).strip()):
            if not self._lines[-1].startswith((".SH", ".SS")):  # which begin a paragraph already
                self._lines.append(".PP")
            self._fill(paragraph)

    def item(self, tag: str, text: str) -> None:
        """A word in bold with what it means beside it."""
        self._lines += [".TP", rf"\fB{escaped(tag)}\fR"]
        self._fill(text)

    def code(self, text: str) -> None:
        """Lines that stay as they are."""
        lines = [escaped(line).replace("  ", " ") or r"\&" for line in text.splitlines()]
        self._lines += [".nf", ".RS 4", *lines, ".RE", ".fi"]

    def _fill(self, text: str) -> None:
        lines = textwrap.wrap(escaped(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
        self._lines += [_guarded(line) for line in lines]

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"
