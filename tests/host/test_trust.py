"""Code that only root can change: modes, owners, parent directories, links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paraglider.errors import as_root
from paraglider.host.trust import untrusted

ME = frozenset({os.getuid()})


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with a module and a package, all of it the test's own."""
    directory = tmp_path / "policies"
    (directory / "package").mkdir(parents=True)
    (directory / "one.py").touch()
    (directory / "package" / "two.py").touch()
    for place in (directory, *directory.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    return directory


def test_ones_own_is_trusted(policies: Path) -> None:
    """A directory that others cannot write to, also below a sticky /tmp."""
    assert untrusted(policies, ME) is None


@pytest.mark.parametrize("place", ["one.py", "package", "package/two.py", ".", ".."])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_writable_by_others(policies: Path, place: str, mode: int) -> None:
    """A file, a directory, the directory itself, or a parent: writable by a group or by all."""
    found = (policies / place).resolve()
    found.chmod(found.stat().st_mode | mode)
    what, remedy = untrusted(policies, ME) or ("", "")
    assert what.startswith(f"{found} may be written by others than root")
    assert remedy == as_root(f"chmod go-w {found}")


def test_sticky_helps_only_above(policies: Path) -> None:
    """Others cannot replace entries of a directory like /tmp, but can add files to it."""
    policies.parent.chmod(0o1777)
    assert untrusted(policies, ME) is None
    policies.chmod(0o1777)
    assert untrusted(policies, ME) is not None


def test_links_are_followed(policies: Path, tmp_path: Path) -> None:
    """The target of a link and the directories of its path are checked."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (elsewhere / "three.py").touch(mode=0o644)
    (policies / "three.py").symlink_to(elsewhere / "three.py")
    (policies / "package" / "round").symlink_to(policies)
    (policies / "nowhere.py").symlink_to(tmp_path / "nowhere")
    assert untrusted(policies, ME) is None
    elsewhere.chmod(0o777)
    what, _ = untrusted(policies, ME) or ("", "")
    assert what.startswith(f"{elsewhere} may be written")


def test_the_directory_may_be_a_link(policies: Path, tmp_path: Path) -> None:
    """The target of the link is checked."""
    link = tmp_path / "link"
    link.symlink_to(policies)
    assert untrusted(link, ME) is None
    (policies / "one.py").chmod(0o666)
    assert untrusted(link, ME) is not None


@pytest.mark.root
def test_another_owner(policies: Path) -> None:
    """Another user can change own files."""
    os.chown(policies / "one.py", 65534, 0)
    what, remedy = untrusted(policies) or ("", "")
    assert what.startswith(f"{policies / 'one.py'} belongs to user 65534")
    assert remedy == as_root(f"chown root {policies / 'one.py'}")
