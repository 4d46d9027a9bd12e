"""Durations as text: `30s`, `2m`, `500ms`, `1h30m`.

Lives here: ``parse_duration``, ``parse_whole`` (whole seconds) and ``SCHEMA``; the types of keys
are in ``config.section``, that of options in ``cli.durations``.
Rules: pure; the standard library alone, since every command imports it. A number without a unit
is seconds, unlike in HAProxy, where it is milliseconds.
"""

from __future__ import annotations

import re
from typing import Any, Final

from paraglider.config.wording import shown

#: seconds of each unit, the longest first
UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
#: each unit once at most, the longest first, as `paraglider show` writes them and Go reads them
_TEXT: Final = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in UNITS), re.ASCII)
_SHAPE: Final = "write seconds, or a number with ms, s, m, h or d, such as 30s, 2m or 500ms"

#: the JSON Schema of a duration as text
SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$",
    "examples": ["30s"],
}


def parse_duration(value: Any) -> Any:
    """The seconds that a text such as `30s` or `1h30m` means, an int if they are whole; a value
    that is no such text, also a number in quotes, as it is.

    Raises ``ValueError`` with the remedy for any other text.
    """
    if not isinstance(value, str) or is_number(value):
        return value
    match = _TEXT.fullmatch(value)
    if match is None or not value:
        raise ValueError(f"{shown(value)} is no duration; {_SHAPE}")
    parts = zip(match.groups(), UNITS, strict=True)
    # A number of milliseconds is divided, which rounds once: 100ms is 0.1.
    each = (
        float(number) / 1000 if unit == "ms" else float(number) * UNITS[unit]
        for number, unit in parts
        if number is not None
    )
    seconds = round(sum(each), 9)
    return int(seconds) if seconds.is_integer() else seconds


def parse_whole(value: Any) -> Any:
    """As ``parse_duration``; raises ``ValueError`` also for a text with a fraction of a second."""
    seconds = parse_duration(value)
    if isinstance(value, str) and isinstance(seconds, float):
        raise ValueError(
            f"{shown(value)} is no whole number of seconds; write whole seconds, such as"
            f" {max(1, round(seconds))}s"
        )
    return seconds


def is_number(text: str) -> bool:
    """Whether ``text`` is a decimal number without a unit."""
    return re.fullmatch(_NUMBER, text, re.ASCII) is not None
