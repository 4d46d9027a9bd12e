"""The bpffs in which the carrier's maps and links are pinned: /run/paraglider/bpf.

Lives here: ``mounted`` and ``unmount``, ``open_pins``, ``find_pins``, ``remove_pins``, ``unpin``,
the directories of others, ``exclusive``, and ``PINS``, where it is.
Rules: pins end with their mount, and a mount with its mount namespace: `paraglider.config` makes it
for a daemon that systemd confines, the lab for those that it runs by `ip netns exec`. Each network
namespace has its own directory in it, named by its cookie. No other bpffs is used. Processes of
several network namespaces may start and exit at once: mounting, unmounting and removing directories
take a lock, and a pin or directory that is missing was removed by another process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from paraglider.errors import PlatformError
from paraglider.host.lock import wait_for
from paraglider.host.ownership import RUN_DIRECTORY, netns_cookie

PINS: Final = RUN_DIRECTORY / "bpf"

#: the source of our mount in the list of mounts
SOURCE: Final = "paraglider"
#: that of a lab's mount, in which other daemons may pin too
LAB_SOURCE: Final = "paraglider-lab"

_OWN_MOUNTS: Final = Path("/proc/self/mountinfo")
_MAGIC: Final = 0xCAFE4A11  # BPF_FS_MAGIC, linux/magic.h
_FLAGS: Final = 2 | 4 | 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_STATFS: Final = 256  # more than struct statfs, which begins with the type


@contextlib.contextmanager
def exclusive(place: Path = PINS) -> Iterator[None]:
    """Exclude other processes that mount, unmount or remove directories. Not reentrant.

    Otherwise one of two mounts would hide the pins of the other, and a directory could be removed
    that another process has just opened. Raises ``PlatformError`` if the lock stays taken.
    """
    with wait_for(place.with_name(f"{place.name}.lock")):
        yield


def open_pins(place: Path = PINS) -> int:
    """The descriptor of this network namespace's directory, which is created where it is missing.

    Raises ``PlatformError`` if the bpffs cannot be mounted.
    """
    name = _name()
    with exclusive(place):
        root = _mounted(place, SOURCE)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=root)
            return os.open(name, _DIRECTORY, dir_fd=root)
        except OSError as error:
            raise PlatformError(f"{place}/{name} cannot be created: {error.strerror}") from error
        finally:
            os.close(root)


def find_pins(place: Path = PINS) -> int | None:
    """As ``open_pins``; None where there is nothing pinned, and nothing is created."""
    root = _opened(place)
    if root is None:
        return None
    try:
        return os.open(_name(), _DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return None
    finally:
        os.close(root)


def pins_path(place: Path = PINS) -> Path | None:
    """The path of this network namespace's directory; None if there is none."""
    path = place / _name()
    return path if path.exists() else None


def remove_pins(place: Path = PINS) -> None:
    """Remove this network namespace's directory, which must be empty, and the mount with the last.

    Raises ``PlatformError``.
    """
    if place.exists():
        with exclusive(place):
            _remove_pins(place)


def _remove_pins(place: Path) -> None:
    root = _opened(place)
    if root is None:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(_name(), dir_fd=root)
        last = not _cookies(root)
    except OSError as error:
        raise PlatformError(f"{place} cannot be removed: {error.strerror}") from error
    finally:
        os.close(root)
    if last:
        for source in (SOURCE, LAB_SOURCE):
            _unmount(place, source)


def others(place: Path = PINS) -> dict[int, int]:
    """The descriptors of the directories of other network namespaces, by their cookies."""
    root = _opened(place)
    if root is None:
        return {}
    found = {}
    try:
        for cookie in _cookies(root):
            if cookie != netns_cookie():
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found[cookie] = os.open(f"{cookie:x}", _DIRECTORY, dir_fd=root)
    finally:
        os.close(root)
    return found


def remove_other(cookie: int, place: Path = PINS) -> None:
    """Remove the empty directory of another network namespace, if it exists; raises ``OSError``."""
    root = _opened(place)
    if root is not None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(f"{cookie:x}", dir_fd=root)
        finally:
            os.close(root)


def names(directory: int) -> list[str]:
    """What is pinned in an open ``directory``: nothing if it was removed; raises ``OSError``."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def unpin(directory: int, name: str) -> None:
    """Remove a pin, if it is there; raises ``OSError``."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _cookies(root: int) -> list[int]:
    """The network namespaces that have a directory; the kernel puts files of its own beside."""
    return [int(name, 16) for name in names(root) if re.fullmatch("[0-9a-f]+", name)]


def _name() -> str:
    return f"{netns_cookie():x}"


def _opened(place: Path) -> int | None:
    """The descriptor of ``place`` if a bpffs is mounted there."""
    try:
        number = os.open(place, _DIRECTORY)
    except OSError:
        return None
    room = ctypes.create_string_buffer(_STATFS)
    if ctypes.CDLL(None).fstatfs(number, room) == 0:
        (kind,) = struct.unpack_from("@l", room)
        if kind == _MAGIC:
            return number
    os.close(number)
    return None


def mounted(place: Path = PINS, source: str = SOURCE) -> int:
    """Mount a bpffs at ``place`` if there is none; returns the descriptor of its root.

    ``remove_pins`` unmounts one of SOURCE or LAB_SOURCE only. Raises ``PlatformError``.
    """
    with exclusive(place):
        return _mounted(place, source)


def _mounted(place: Path, source: str) -> int:
    found = _opened(place)
    if found is not None:
        return found
    mount = ctypes.CDLL(None, use_errno=True).mount
    created = not place.exists()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    what = (source.encode(), os.fsencode(place), b"bpf")
    failed = mount(*what, ctypes.c_ulong(_FLAGS), b"mode=0700")
    number = ctypes.get_errno() if failed else 0
    found = _opened(place)
    if found is None:
        if created:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise PlatformError(
            f"no bpffs can be mounted at {place}: {os.strerror(number)}",
            "run paraglider.config, which mounts it",
        )
    return found


def unmount(place: Path = PINS, source: str = SOURCE) -> None:
    """Unmount ``place`` if it was mounted as ``source``, no network namespace has a directory in
    it, and no process has it open; raises ``PlatformError``.
    """
    if place.exists():
        with exclusive(place):
            _unmount(place, source)


def _unmount(place: Path, source: str) -> None:
    if not _is_mounted(place, source) or _has_pins(place):
        return
    if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(place), 0) == 0:
        # A directory that is removed takes the mounts of other mount namespaces with it, also
        # those in use (fs/namespace.c, detach_mounts). Processes of `ip netns exec` have copies.
        if not _is_mounted_elsewhere(place):
            with contextlib.suppress(OSError):
                place.rmdir()
    elif (number := ctypes.get_errno()) != errno.EBUSY:
        raise PlatformError(f"{place} cannot be unmounted: {os.strerror(number)}", "start as root")


def _has_pins(place: Path) -> bool:
    """Whether a network namespace has a directory in the mount: also if its daemon is down."""
    root = _opened(place)
    if root is None:
        return False
    try:
        return bool(_cookies(root))
    finally:
        os.close(root)


def _is_mounted_elsewhere(place: Path) -> bool:
    """Whether a process of another mount namespace has a mount at ``place``."""
    seen = {Path("/proc/self/ns/mnt").readlink()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            namespace = (process / "ns" / "mnt").readlink()
            if namespace not in seen and _mounts(place, process / "mountinfo"):
                return True
            seen.add(namespace)
    return False


def _is_mounted(place: Path, source: str) -> bool:
    """Whether a bpffs of ``source`` is at ``place``."""
    return ["bpf", source] in _mounts(place, _OWN_MOUNTS)


def _mounts(place: Path, mounts: Path) -> list[list[str]]:
    """The types and sources of what is mounted at ``place``, by proc_pid_mountinfo(5)."""
    found = []
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == str(place):
            found.append(rest.split()[:2])
    return found
