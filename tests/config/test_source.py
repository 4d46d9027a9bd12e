"""Tests of ``paraglider.config.source``; ``test_load`` tests the messages about files."""

from __future__ import annotations

import io
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from paraglider.config import reader
from paraglider.config.diagnostics import ConfigError
from paraglider.config.source import decoded, read, read_for, read_from


def test_text_without_byte_order_mark(tmp_path: Path) -> None:
    """The text is that of the file, a byte order mark left out."""
    file = tmp_path / "f"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xbc\n")
    assert read(str(file)) == "a: ü\n"


def test_only_regular_files(tmp_path: Path) -> None:
    """An endless device, and a pipe without a writer, are refused at once; a link to a file is
    read.
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    for odd in ("/dev/zero", str(fifo)):
        with pytest.raises(ConfigError, match=f"^{odd}: this is no regular file; name one$"):
            read(odd)
    assert read(str(tmp_path / "link")) == "text"


def test_a_pipe_where_one_may_be(tmp_path: Path) -> None:
    """A shell's <(command) is read to its end, up to the bound."""
    reading, writing = os.pipe()
    os.write(writing, b"text")
    os.close(writing)
    assert read(f"/proc/self/fd/{reading}", pipes=True) == "text"
    os.close(reading)


@pytest.mark.root
@pytest.mark.parametrize(
    ("file", "directory", "told"),
    [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o700, False), (0o604, 0o711, True)],
)
def test_users_who_can_read_the_file(
    tmp_path_factory: pytest.TempPathFactory, file: int, directory: int, told: bool
) -> None:
    """The modes of the file that a link leads to count, and of all directories above it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        outer = Path(name)
        outer.chmod(directory)
        (outer / "file").write_text("secret")
        (outer / "file").chmod(file)
        link = tmp_path_factory.mktemp("links") / "link"
        link.symlink_to(outer / "file")
        assert read_for("nobody", str(link), "") == ("secret", told)
        os.chown(outer, pwd.getpwnam("nobody").pw_uid, -1)
        os.chown(outer / "file", pwd.getpwnam("nobody").pw_uid, -1)
        assert read_for("nobody", str(link), "") == ("secret", True)
        assert read_for("no such user", str(link), "") == ("secret", told)


def test_stream_is_read_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a stream, no more than the bound is read."""
    monkeypatch.setattr(reader, "MAX_BYTES", 1_000_000)
    assert read_from(io.BytesIO(b"x" * 1_000_000), "f") == "x" * 1_000_000
    stream = io.BytesIO(b"x" * 5_000_000)
    with pytest.raises(ConfigError, match="f:1:1: the file is larger than 1 MB"):
        read_from(stream, "f")
    assert stream.tell() == 1_000_001


def test_byte_that_is_no_text_has_its_place() -> None:
    """The line and column of a wrong byte count characters, not bytes."""
    with pytest.raises(ConfigError, match=r"f:2:2: byte 0xff is no UTF-8; save the file in UTF-8"):
        decoded("ä\nü".encode() + b"\xff", "f")
