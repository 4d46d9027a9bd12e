r"""What a check sends, and what it expects: bytes, written as text with escapes.

Lives here: ``Payload`` and ``BytesPattern``, the types of the keys; ``unescaped``, the bytes of a
payload; ``bytes_pattern``, the compiled expression.
Rules: the model keeps the text of the file, so that a configuration can be written again. ``\xHH``
is one byte; other characters are bytes of UTF-8. YAML replaces the escapes of a text in double
quotes by characters, so bytes from ``\x80`` on need single quotes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from paraglider.config.types import parse_pattern
from paraglider.config.wording import shown

#: most characters of a payload
_LONGEST: Final = 4000
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.)|$)", re.DOTALL)
_NAMED: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def unescaped(text: str) -> bytes:
    r"""The bytes of ``text``, whose escapes are ``\r \n \t \0 \\ \xHH``; raises ValueError for
    another.
    """
    found, at = bytearray(), 0
    for escape in _ESCAPE.finditer(text):
        found += text[at : escape.start()].encode()
        at = escape.end()
        number, name = escape.groups()
        if number is not None:
            found.append(int(number, 16))
        elif name in _NAMED:
            found += _NAMED[name]
        else:
            what = f"{shown(escape.group())} is no escape"
            raise ValueError(f"{what}; write \\r, \\n, \\t, \\0, \\xHH, or \\\\ for a backslash")
    return bytes(found + text[at:].encode())


def bytes_pattern(expression: str) -> re.Pattern[bytes]:
    """``expression``, a ``BytesPattern``, for a search in bytes."""
    return re.compile(expression.encode())


def _parse_payload(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no text; put it in quotes")
    if not 1 <= len(value) <= _LONGEST:
        raise ValueError(f"the text has {len(value)} characters; write 1 to {_LONGEST}")
    unescaped(value)
    return value


def _parse_bytes_pattern(value: Any) -> str:
    text = parse_pattern(value)
    try:
        bytes_pattern(text)
    except (re.error, ValueError) as error:
        raise ValueError(
            f"{shown(value)} is no regular expression for bytes ({error});"
            r" write a character as itself, a byte as \xHH"
        ) from None
    return text


Payload = Annotated[
    str,
    BeforeValidator(_parse_payload),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST}),
]
BytesPattern = Annotated[
    str,
    BeforeValidator(_parse_bytes_pattern),
    WithJsonSchema({"type": "string", "format": "regex", "maxLength": 1000}),
]
