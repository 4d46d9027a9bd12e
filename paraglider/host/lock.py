"""Locks that only root can take: flock(2) on a file in a directory of root's.

Lives here: ``LockFile`` and ``is_held``.
Rules: the kernel gives a lock back when its last holder ends, however it ends, so a file that was
left behind is no lock. The files are their owner's alone (0600): a lock asks for no right but to
open the file. Who holds one removes the file before the lock goes; whoever got hold of a file that
was removed meanwhile takes the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from paraglider.errors import PlatformError


class LockFile:
    """The lock at ``path``, held until ``close``, by forked children too.

    Raises ``BlockingIOError`` where another process holds it, ``PlatformError`` where there can be
    none. A context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        try:
            _make(path.parent)
            self._number = self._take()
        except BlockingIOError:
            raise
        except OSError as error:
            raise PlatformError(
                f"there can be no lock at {path}: {error.strerror}",
                f"{path.parent} must be a directory of root's that others cannot write to",
            ) from error

    def write(self, text: str) -> None:
        """Make ``text`` what is in the file, for others to read; raises ``OSError``."""
        os.ftruncate(self._number, 0)
        os.pwrite(self._number, text.encode(), 0)

    def close(self) -> None:
        """Give the lock back; again and again does no harm."""
        number, self._number = self._number, -1
        if number >= 0:
            if self._pid == os.getpid():  # a forked child leaves the file to its parent
                with contextlib.suppress(OSError):
                    self.path.unlink()
            os.close(number)

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> int:
        while True:
            number = os.open(self.path, _FLAGS | os.O_CREAT, 0o600)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(number, self.path):
                    return number
            except BaseException:
                os.close(number)
                raise
            os.close(number)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at ``path``; one that nobody does is removed.

    Raises ``OSError`` where the file may not be opened.
    """
    try:
        number = os.open(path, _FLAGS)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(number, path):
            path.unlink()
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def _make(directory: Path) -> None:
    """Make ``directory``, if need be; raises ``OSError`` where others could put files there."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid not in (0, os.geteuid()) or stat.S_IMODE(found.st_mode) & 0o022:
        raise OSError(errno.EPERM, "others can write to its directory")


def _is_at(number: int, path: Path) -> bool:
    """Whether what is open as ``number`` is still the file at ``path``."""
    try:
        return os.path.samestat(os.fstat(number), path.lstat())
    except FileNotFoundError:
        return False
