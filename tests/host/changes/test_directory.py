"""The default chroot directory as a change."""

from __future__ import annotations

from pathlib import Path

from paraglider.host.changes.base import Host
from paraglider.host.changes.directory import DirectoryChange


def test_a_directory_is_made_for_all_to_enter(tmp_path: Path) -> None:
    """The directory has mode 0755 and belongs to root; creating it again is no error."""
    change = DirectoryChange(4, str(tmp_path / "empty"))
    change.apply(Host())
    change.apply(Host())
    assert (tmp_path / "empty").stat().st_mode & 0o7777 == 0o755


def test_only_an_empty_directory_is_removed(tmp_path: Path) -> None:
    """A directory with content stays."""
    change = DirectoryChange(4, str(tmp_path / "empty"))
    change.apply(Host())
    (tmp_path / "empty" / "file").touch()
    change.revert(Host())
    assert (tmp_path / "empty" / "file").exists()
    (tmp_path / "empty" / "file").unlink()
    change.revert(Host())
    assert not (tmp_path / "empty").exists()


def test_the_script_is_what_one_would_type(tmp_path: Path) -> None:
    """With the mode, and quoted."""
    change = DirectoryChange(4, "/var/run/a b")
    assert change.script(Host()) == "mkdir -m 755 '/var/run/a b'\n"
    assert change.revert_script(Host()) == "rmdir '/var/run/a b'\n"
