"""Fields of a message from a process that is not believed: each is what it must be, or ValueError.

Lives here: ``text``, ``name``, ``number``, ``whole``, ``flag``.
Rules: pure. KeyError is for a field that is missing, ValueError for one that is not as it must be;
the value itself never stands in the error, for it ends up in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: characters of a line that is shown to people
LONGEST_LINE: Final = 300
#: characters of what names something
LONGEST_NAME: Final = 4096


def text(plain: Mapping[str, Any], field: str) -> str:
    """A line for people: cut to LONGEST_LINE, control characters replaced."""
    value = plain[field]
    if not isinstance(value, str):
        raise ValueError(f"`{field}` is no text")
    cut = value[:LONGEST_LINE]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)


def name(plain: Mapping[str, Any], field: str) -> str:
    """What names something that there is: exactly as it came."""
    value = plain[field]
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError(f"`{field}` is no name")
    return value


def number(plain: Mapping[str, Any], field: str, low: float, high: float) -> float:
    """A number from ``low`` to ``high``."""
    value = plain[field]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{field}` is no number")
    if not low <= value <= high:  # which NaN is not
        raise ValueError(f"`{field}` is not between {low:g} and {high:g}")
    return float(value)


def whole(plain: Mapping[str, Any], field: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    value = plain[field]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"`{field}` is no whole number between {low} and {high}")
    return value


def flag(plain: Mapping[str, Any], field: str) -> bool:
    """True or false."""
    value = plain[field]
    if not isinstance(value, bool):
        raise ValueError(f"`{field}` is neither true nor false")
    return value
