"""Blocks of `NAME WORDS… { … }`, which nginx and keepalived share.

Lives here: ``Statement``, and ``Builder``, which makes the tree of statements.
Rules: braces that do not match are mistakes with their place; depth and number are bounded. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import Draft
from paraglider.config.wording import shown

_DEEPEST: Final = 16
_MOST: Final = 500_000


@dataclass(slots=True)
class Statement:
    """A name with its words, and the statements of its block; None without one."""

    mark: Mark
    name: str
    words: tuple[str, ...] = ()
    block: list[Statement] | None = None

    @property
    def word(self) -> str:
        """Its first word, or nothing."""
        return self.words[0] if self.words else ""

    @property
    def inner(self) -> list[Statement]:
        """The statements of its block, or none."""
        return self.block or []

    def all(self, *names: str) -> Iterator[Statement]:
        """The statements of its block that are called one of ``names``."""
        return (each for each in self.inner if each.name in names)

    def last(self, name: str) -> Statement | None:
        """The last statement of its block called ``name``, which counts in keepalived."""
        return next((each for each in reversed(self.inner) if each.name == name), None)

    def __str__(self) -> str:
        return " ".join((self.name, *self.words))


@dataclass(slots=True)
class Builder:
    """The statements so far; ``stack`` has the blocks that are open, the outermost first."""

    draft: Draft
    statements: list[Statement] = field(default_factory=list)
    stack: list[Statement] = field(default_factory=list)
    broken: bool = False
    _count: int = 0

    def add(self, statement: Statement) -> None:
        """Add ``statement`` to the block that is open; with a block it is open from now on."""
        self._count += 1
        if self._count > _MOST:
            self.mistake(statement.mark, f"there are more than {_MOST} statements; is it the file?")
            return
        if len(self.stack) >= _DEEPEST:
            what = f"blocks are nested more than {_DEEPEST} deep"
            self.mistake(statement.mark, f"{what}; is a `}}` missing above?")
            return
        above = self.stack[-1].block if self.stack else self.statements
        if above is not None:
            above.append(statement)
        if statement.block is not None:
            self.stack.append(statement)

    def close(self, mark: Mark) -> None:
        """Close the block that is open, for a `}` at ``mark``."""
        if not self.stack:
            self.mistake(
                mark, "a `}` closes no block; remove it, or add the `{` that it belongs to"
            )
            return
        self.stack.pop()

    def end(self, depth: int = 0) -> None:
        """The file ends: no block above ``depth`` may be open."""
        if len(self.stack) > depth and not self.broken:
            left = self.stack[-1]
            what = f"the block {shown(str(left))} is not closed"
            self.mistake(left.mark, f"{what}; add the `}}` that is missing")

    def mistake(self, mark: Mark, message: str) -> None:
        """Add a mistake, after which nothing is read."""
        self.broken = True
        self.draft.mistake(("services",), mark, message)
