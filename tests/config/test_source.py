"""Tests of ``paraglider.config.source``; what `load` says of files is tested there."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from paraglider.config import document
from paraglider.config.problem import ConfigError
from paraglider.config.source import decoded, read, read_from


def test_text_without_byte_order_mark(tmp_path: Path) -> None:
    """The text is that of the file, a byte order mark left out."""
    file = tmp_path / "f"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xbc\n")
    assert read(str(file)) == "a: ü\n"


def test_device_without_end() -> None:
    """A device that never ends is refused after the bound."""
    with pytest.raises(ConfigError, match="/dev/zero:1:1: the file is larger than 10 MB"):
        read("/dev/zero")


def test_stream_is_read_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream, too, no more than the bound is read."""
    monkeypatch.setattr(document, "MAX_BYTES", 1_000_000)
    assert read_from(io.BytesIO(b"x" * 1_000_000), "f") == "x" * 1_000_000
    stream = io.BytesIO(b"x" * 5_000_000)
    with pytest.raises(ConfigError, match="f:1:1: the file is larger than 1 MB"):
        read_from(stream, "f")
    assert stream.tell() == 1_000_001


def test_byte_that_is_no_text_has_its_place() -> None:
    """The line and column of a wrong byte count characters, not bytes."""
    with pytest.raises(ConfigError, match=r"f:2:2: byte 0xff is no UTF-8; save the file in UTF-8"):
        decoded("ä\nü".encode() + b"\xff", "f")
