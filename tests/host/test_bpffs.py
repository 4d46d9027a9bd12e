"""The bpffs of our own: mounted once, a directory a network namespace, unmounted with the last."""

from __future__ import annotations

import ctypes
import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import exit_code, wait_until

from paraglider.bpf import syscall
from paraglider.errors import PlatformError
from paraglider.host import bpffs
from paraglider.host.ownership import netns_cookie
from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where it is to be."""
    path = tmp_path / "bpf"
    yield path
    while path.is_mount():
        os.system(f"umount -l {path}")  # a test that failed may have left it open


def close(number: int | None) -> None:
    """Close a directory that must be there."""
    assert number is not None
    os.close(number)


def test_the_directory_is_the_namespaces_own(inside: Namespace, place: Path) -> None:
    """It is made once, by root for root, in a mount that executes nothing."""
    close(bpffs.open_pins(place))
    close(bpffs.open_pins(place))
    own = place / f"{netns_cookie():x}"
    assert bpffs.pins_path(place) == own
    assert own.stat().st_mode & 0o777 == 0o700
    assert place.stat().st_mode & 0o777 == 0o700
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in mounts if f" {place} " in line]
    assert line.startswith("paraglider ")
    assert "nosuid,nodev,noexec" in line


def test_without_pins_nothing_is_mounted(place: Path) -> None:
    """Looking for pins, and removing them, makes nothing."""
    assert bpffs.find_pins(place) is None
    assert bpffs.pins_path(place) is None
    bpffs.remove_pins(place)
    assert bpffs.others(place) == {}
    assert not place.exists()


def test_pins_are_found_again(inside: Namespace, place: Path) -> None:
    """By another daemon of the same namespace."""
    pins = bpffs.open_pins(place)
    number = syscall.create_map(syscall.ARRAY, 4, 8, 1)
    syscall.pin(number, pins, "one")
    os.close(number)
    os.close(pins)
    again = bpffs.find_pins(place)
    assert again is not None
    assert bpffs.names(again) == ["one"]
    os.unlink("one", dir_fd=again)
    os.close(again)


def test_the_last_directory_takes_the_mount_with_it(inside: Namespace, place: Path) -> None:
    """Another namespace's directory keeps it; what the kernel puts there does not."""
    close(bpffs.open_pins(place))
    (place / "abc").mkdir()
    bpffs.remove_pins(place)
    assert place.is_mount()
    found = bpffs.others(place)
    assert list(found) == [0xABC]
    close(found[0xABC])
    bpffs.remove_other(0xABC, place)
    bpffs.remove_pins(place)
    assert not place.exists()


def test_a_directory_that_vanishes_is_passed_over(
    inside: Namespace, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its daemon removes it between the listing and the opening."""
    close(bpffs.open_pins(place))
    (place / "abc").mkdir()
    listed = bpffs.names
    monkeypatch.setattr(bpffs, "names", lambda directory: [*listed(directory), "def"])
    found = bpffs.others(place)
    assert list(found) == [0xABC]
    close(found[0xABC])
    monkeypatch.undo()
    bpffs.remove_other(0xABC, place)
    bpffs.remove_pins(place)
    assert not place.exists()


def test_processes_that_begin_together_mount_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second mount would hide the pins of the first. Each takes its time to mount."""
    opened = bpffs._opened

    def slowly(where: Path) -> int | None:
        number = opened(where)
        if number is None:
            select.select([], [], [], 0.2)
        return number

    monkeypatch.setattr(bpffs, "_opened", slowly)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.close(bpffs.mounted(place))
            os._exit(0)
        children.append(child)
    assert [exit_code(child) for child in children] == [0] * 4
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    assert sum(f" {place} " in line for line in mounts) == 1


def test_the_last_waits_for_those_who_begin(
    inside: Namespace, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of one is not made in a mount that another is about to take away."""
    close(bpffs.open_pins(place))
    listed = bpffs._cookies

    def slowly(root: int) -> list[int]:
        found = listed(root)
        select.select([], [], [], 0.2)
        return found

    monkeypatch.setattr(bpffs, "_cookies", slowly)
    child = os.fork()
    if child == 0:
        bpffs.remove_pins(place)
        os._exit(0)
    wait_until(lambda: bpffs.pins_path(place) is None)  # the child looks whether it was the last
    close(bpffs.open_pins(place))
    assert exit_code(child) == 0
    assert bpffs.pins_path(place) is not None


def test_a_private_copy_of_the_mount_takes_nothing_along(place: Path) -> None:
    """A process with a mount namespace of its own, as `ip netns exec` has, unmounts its copy: the
    directory, which others have too, stays, and their mount with it.
    """
    root = bpffs.mounted(place)
    child = os.fork()
    if child == 0:
        os.close(root)
        ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS
        bpffs.unmount(place)
        os._exit(int(place.is_mount()))
    assert exit_code(child) == 0
    assert place.is_mount()
    assert os.path.samestat(os.fstat(root), place.stat())
    os.close(root)


def test_a_directory_that_another_removes_is_empty(inside: Namespace, place: Path) -> None:
    """As is a pin that is gone: each process finds what it wanted."""
    pins = bpffs.open_pins(place)
    bpffs.remove_pins(place)
    assert bpffs.names(pins) == []
    bpffs.unpin(pins, "one")
    os.close(pins)


def test_a_mount_of_others_stays(inside: Namespace, place: Path) -> None:
    """Also with nothing of ours left in it."""
    close(bpffs.mounted(place, source="theirs"))
    close(bpffs.open_pins(place))
    bpffs.remove_pins(place)
    assert place.is_mount()
    bpffs.unmount(place, source="theirs")
    assert not place.exists()


def test_a_mount_with_a_directory_stays(inside: Namespace, place: Path) -> None:
    """Whoever mounted it: a daemon that is down has its pins there."""
    close(bpffs.mounted(place, bpffs.LAB_SOURCE))
    (place / "abc").mkdir()
    bpffs.unmount(place, bpffs.LAB_SOURCE)
    assert (place / "abc").exists()
    bpffs.remove_other(0xABC, place)
    bpffs.unmount(place, bpffs.LAB_SOURCE)
    assert not place.exists()


def test_a_mount_that_a_lab_left_goes_with_the_last_directory(
    inside: Namespace, place: Path
) -> None:
    """A daemon used it, and was there when the lab ended."""
    close(bpffs.mounted(place, bpffs.LAB_SOURCE))
    close(bpffs.open_pins(place))
    bpffs.remove_pins(place)
    assert not place.exists()


def test_a_mount_in_use_stays(inside: Namespace, place: Path) -> None:
    """A daemon of another namespace may be about to use it."""
    root = bpffs.mounted(place)
    bpffs.remove_pins(place)
    assert place.is_mount()
    os.close(root)
    bpffs.remove_pins(place)
    assert not place.exists()


def test_a_directory_with_pins_is_not_removed(inside: Namespace, place: Path) -> None:
    """That is an error with its place."""
    pins = bpffs.open_pins(place)
    number = syscall.create_map(syscall.ARRAY, 4, 8, 1)
    syscall.pin(number, pins, "one")
    with pytest.raises(PlatformError, match="cannot be removed"):
        bpffs.remove_pins(place)
    os.unlink("one", dir_fd=pins)
    os.close(number)
    os.close(pins)


def test_no_mount_is_a_sentence(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """With the kernel's reason, and no directory is left behind."""

    class Refusing:
        @staticmethod
        def mount(*_: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

        @staticmethod
        def fstatfs(*_: object) -> int:
            return 0  # of some type

    monkeypatch.setattr(bpffs.ctypes, "CDLL", lambda *_, **__: Refusing)
    with pytest.raises(PlatformError, match=r"Operation not permitted; run paraglider\.config"):
        bpffs.mounted(place)
    assert not place.exists()
