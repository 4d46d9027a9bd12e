"""Tests of ``paraglider.config.importers.includes``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paraglider.config.importers.includes import MOST, Includes, MissingIncludeError


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """A main file, with a folder of two others beside it."""
    (tmp_path / "conf.d").mkdir()
    for name in "ba":
        (tmp_path / "conf.d" / f"{name}.conf").write_text(name)
    (tmp_path / "main").write_text("main")
    return tmp_path / "main"


def test_files_by_pattern(main: Path) -> None:
    """A pattern names files in the order of their names, beside the main or the including file."""
    inner = str(main.parent / "conf.d" / "a.conf")
    found = Includes(str(main)).find("conf.d/*.conf", (), beside=False)
    assert [each.text for each in found] == ["a", "b"]
    assert found[0].name == inner
    for beside, name in ((True, "b.conf"), (False, "conf.d/b.conf")):
        (one,) = Includes(str(main)).find(name, (inner,), beside=beside)
        assert one.text == "b"
    (absolute,) = Includes(str(main)).find(inner, (), beside=False)
    assert absolute.text == "a"


@pytest.mark.parametrize("pattern", ["none", "none.d/*.conf", "/none/at/all"])
def test_missing(main: Path, pattern: str) -> None:
    """A file that is not there is known as such, and said with a remedy."""
    with pytest.raises(MissingIncludeError, match="no file is called .*; put the included files"):
        Includes(str(main)).find(pattern, (), beside=False)
    with pytest.raises(MissingIncludeError, match="; name the file to import in place of `-`"):
        Includes().find(pattern, (), beside=False)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("main", "includes itself; remove the include"),
        ("conf.d/../main", "includes itself; remove the include"),
        ("link", "includes itself; remove the include"),
        ("conf.d", "this is a directory; name a file in it"),
        ("pipe", "this is no regular file; name one"),
        ("binary", "binary:1:1: byte 0xff is no UTF-8; save the file"),
        ("/*/*/*/x", "is no name of files; write them one by one"),
        ("a\0b", "is no name of files; write them one by one"),
    ],
)
def test_refused(main: Path, pattern: str, what: str) -> None:
    """What cannot be read, or has no end, is refused with a remedy."""
    (main.parent / "link").symlink_to(main)
    (main.parent / "binary").write_bytes(b"\xff")
    os.mkfifo(main.parent / "pipe")
    with pytest.raises(ValueError, match=what):
        Includes(str(main)).find(pattern, (), beside=False)


def test_bounds(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth, number and size of the files are bounded."""
    deep = tuple(str(main.parent / f"f{index}") for index in range(10))
    with pytest.raises(ValueError, match="files include each other more than 10 deep; remove"):
        Includes(str(main)).find("main2", deep, beside=False)
    many = Includes(str(main))
    for _ in range(MOST // 2):
        many.find("conf.d/*.conf", (), beside=False)
    with pytest.raises(ValueError, match=f"more than {MOST} files are included; import them one"):
        many.find("conf.d/*.conf", (), beside=False)
    monkeypatch.setattr("paraglider.config.reader.MAX_BYTES", 1)
    with pytest.raises(ValueError, match="the included files are larger than 0 MB; import them"):
        Includes(str(main)).find("conf.d/*.conf", (), beside=False)
