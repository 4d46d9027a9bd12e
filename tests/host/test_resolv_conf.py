"""The text of /etc/resolv.conf, and its changes."""

from __future__ import annotations

from pathlib import Path

from paraglider.host.file_watch import PAUSE
from paraglider.host.resolv_conf import LONGEST, ResolvConf


def test_a_change_is_seen_once(tmp_path: Path) -> None:
    """A file that appears, is replaced or removed is reported once, after it has settled."""
    path = tmp_path / "resolv.conf"
    file = ResolvConf(path)
    assert file.text == ""
    now = 10.0
    for text in ("nameserver 192.0.2.1\n", "nameserver 192.0.2.77\n", ""):
        if text:
            other = tmp_path / "other"
            other.write_text(text)
            other.replace(path)
        else:
            path.unlink()
        found = []
        for _ in range(4):
            now += PAUSE
            found.append(file.changed(now))
        assert found.count(True) == 1
        assert file.text == text
        assert file.wait(now) == PAUSE


def test_a_file_that_is_touched_has_not_changed(tmp_path: Path) -> None:
    """A new mtime with the same text is no change."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    file = ResolvConf(path)
    path.touch()
    assert not any(file.changed(10.0 + number * PAUSE) for number in range(1, 5))


def test_a_huge_file_is_cut(tmp_path: Path) -> None:
    """No more than a message may have."""
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"\xff" * (2 * LONGEST))
    assert len(ResolvConf(path).text) == LONGEST
