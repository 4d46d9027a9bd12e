"""Values and keys of a file, as messages quote them.

Lives here: ``shown``, ``ticked``, and MOST_SHOWN, the length of what they quote.
Rules: pure; the standard library alone, since every command that reads a file imports it.
"""

from __future__ import annotations

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
