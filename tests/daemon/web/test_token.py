"""Tests of ``paraglider.daemon.web.token``: where a token comes from, and whether it is right."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.daemon.web.token import Token, digest, matches
from paraglider.errors import OperatorError

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]}]\n"
GOOD = "0123456789abcdef0123456789abcdef"


def config(directory: Path, stats: str) -> Config:
    """A configuration whose control socket would be in ``directory``."""
    control = f"control: {{socket: {directory}/control.sock}}\n"
    return parse(f"stats: {{{stats}}}\n{control}{SERVICE}", "f").config


def test_read_only(tmp_path: Path) -> None:
    """Without `admin` there is no token, and no change is allowed."""
    token = Token(config(tmp_path, ""))
    assert token.digest is None
    assert list(tmp_path.iterdir()) == []
    assert not matches(GOOD, None)


def test_made(tmp_path: Path) -> None:
    """Without `token_file` one is created, readable by root only, different each time; it is
    removed at the end.
    """
    (tmp_path / "stats.token").symlink_to(tmp_path / "elsewhere")
    tokens = []
    for _ in range(2):
        token = Token(config(tmp_path, "admin: true"))
        path = tmp_path / "stats.token"
        assert token.path == path
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        tokens.append(path.read_text().strip())
        assert matches(tokens[-1], token.digest)
        token.close()
        token.close()
        assert list(tmp_path.iterdir()) == []
    assert len(set(tokens)) == 2
    assert min(map(len, tokens)) >= 40


def test_given(tmp_path: Path) -> None:
    """A file of the operator's is read, and stays."""
    path = tmp_path / "token"
    path.write_text(f"{GOOD}\n")
    path.chmod(0o600)
    token = Token(config(tmp_path, f"admin: true, token_file: {path}"))
    assert token.digest == digest(GOOD)
    token.close()
    assert path.read_text() == f"{GOOD}\n"


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, 0o600, "cannot be read: No such file or directory; make one: (umask"),
        (GOOD, 0o640, "is not its owner's alone; chmod 600"),
        ("short", 0o600, "has no token of 22 characters"),
        (f"{GOOD} {GOOD}", 0o600, "has no token of 22 characters"),
        (f"{GOOD}é", 0o600, "has no token of 22 characters"),
    ],
)
def test_refused(tmp_path: Path, text: str | None, mode: int, words: str) -> None:
    """A file that is none, too open, or without a good token is refused with a remedy."""
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(OperatorError) as raised:
        Token(config(tmp_path, f"admin: true, token_file: {path}"))
    assert words in str(raised.value)


def test_no_text(tmp_path: Path) -> None:
    """Bytes that are no text are no token."""
    path = tmp_path / "token"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(OperatorError, match="it is no text"):
        Token(config(tmp_path, f"admin: true, token_file: {path}"))


def test_no_place(tmp_path: Path) -> None:
    """A directory that is not there cannot take the file."""
    with pytest.raises(OperatorError, match="cannot be made: No such file"):
        Token(config(tmp_path / "none", "admin: true"))


@pytest.mark.parametrize("given", ["", GOOD[:-1], GOOD + "0", None, 7, "\udcff" * 32, ["x"]])
def test_wrong(given: Any) -> None:
    """Any other value is wrong, and no error."""
    assert matches(GOOD, digest(GOOD))
    assert not matches(given, digest(GOOD))


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """A pipe without a writer would never be read to its end."""
    os.mkfifo(tmp_path / "token", 0o600)
    with pytest.raises(OperatorError, match="cannot be read: it is no regular file; make one"):
        Token(config(tmp_path, f"admin: true, token_file: {tmp_path}/token"))
