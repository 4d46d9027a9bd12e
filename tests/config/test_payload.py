"""Tests of ``paraglider.config.payload``: bytes as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from paraglider.config.payload import BytesPattern, Payload, bytes_pattern, unescaped


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("plain", b"plain"),
        (r"a\r\n\t\0", b"a\r\n\t\0"),
        (r"\x00\xff\xA0", b"\x00\xff\xa0"),
        (r"\\x41", rb"\x41"),
        ("\r\n", b"\r\n"),
        ("é", b"\xc3\xa9"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    """Escapes are bytes, other characters those of UTF-8."""
    assert unescaped(text) == data


@pytest.mark.parametrize("text", ["\\", r"\q", r"\x4", r"\xgg", "", "x" * 4001, 5, "\ud800"])
def test_no_payloads(text: object) -> None:
    """An unknown escape, and what is no text or too long, is refused."""
    with pytest.raises(ValidationError):
        TypeAdapter(Payload).validate_python(text)


@given(data=st.binary(min_size=1, max_size=100))
def test_all_bytes(data: bytes) -> None:
    """All bytes can be written."""
    text = "".join(f"\\x{byte:02x}" for byte in data)
    assert unescaped(TypeAdapter(Payload).validate_python(text)) == data


def test_patterns() -> None:
    """An expression is one for bytes."""
    assert bytes_pattern("é$").search(b"\xc3\xa9")
    assert bytes_pattern(r"^\xff").search(b"\xff\xfe")
    for wrong in ("(", r"\u00e9", 5):
        with pytest.raises(ValidationError):
            TypeAdapter(BytesPattern).validate_python(wrong)
