"""Values and keys of a file, as messages quote them.

Lives here: ``shown``, ``ticked``, and MOST_SHOWN, the length of what they quote; ``nearest`` and
``did_you_mean`` (the known word that was probably meant).
Rules: pure; the standard library alone, since every command that reads a file imports it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

#: most characters of a value in a message
MOST_SHOWN: Final = 60


def shown(value: Any) -> str:
    """A value of the file for a message: short, in YAML notation."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def ticked(key: str | int) -> str:
    """A key of the file for a message: in backticks, short, on one line."""
    text = str(key) if str(key).isprintable() else ascii(key)
    return f"`{text}`" if len(text) <= MOST_SHOWN else f"`{text[:MOST_SHOWN]}...`"


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most similar to ``value``; None if none is."""
    close = difflib.get_close_matches(value, list(known), n=1)
    return close[0] if close else None


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """``did you mean X? ``, to begin a remedy with; empty if none of ``known`` is near."""
    close = nearest(value, known) if isinstance(value, str) else None
    return f"did you mean {close}? " if close is not None else ""
