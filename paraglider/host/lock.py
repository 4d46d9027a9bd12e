"""Locks that only root can take: flock(2) on a file in a directory that root owns.

Lives here: ``LockFile``, ``wait_for`` and ``is_held``.
Rules: the kernel releases a lock when its last holder ends, so a leftover file is not a lock. The
files have mode 0600, because whoever can open a file can lock it. The holder removes the file
before it releases the lock; a process that locked a removed file tries again with the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

from paraglider.errors import PlatformError

#: seconds for which a lock that is held only for a moment is waited for
_PATIENCE: Final = 10.0


class LockFile:
    """The lock at ``path``, held until ``close``, also by forked children.

    Raises ``BlockingIOError`` when another process holds it, ``PlatformError`` when the file cannot
    be created. A context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = os.getpid()
        try:
            _make(path.parent)
            self._number = self._acquire()
        except BlockingIOError:
            raise
        except OSError as error:
            raise PlatformError(
                f"cannot create the lock {path}: {error.strerror}",
                f"{path.parent} must be a directory that root owns and only root can write to",
            ) from error

    def write(self, text: str) -> None:
        """Replace the content of the file with ``text``, for others to read; raises ``OSError``."""
        os.ftruncate(self._number, 0)
        os.pwrite(self._number, text.encode(), 0)

    def close(self) -> None:
        """Release the lock; may be called again."""
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

    def _acquire(self) -> int:
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


def wait_for(path: Path) -> LockFile:
    """The lock at ``path``, which others hold only for moments.

    Raises ``PlatformError`` when it is still held after ten seconds, or cannot be created.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return LockFile(path)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise PlatformError(
                    f"another process has held the lock {path} for {_PATIENCE:g} s",
                    "`fuser` names it: end it if it hangs",
                ) from None
        time.sleep(0.005)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at ``path``; removes a leftover file.

    Raises ``OSError`` when the file cannot be opened.
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
    """Create ``directory`` if it is missing; raises ``OSError`` when others can write to it."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid not in (0, os.geteuid()) or stat.S_IMODE(found.st_mode) & 0o022:
        raise OSError(errno.EPERM, "others can write to its directory")


def _is_at(number: int, path: Path) -> bool:
    """Whether the descriptor ``number`` is still the file at ``path``."""
    try:
        return os.path.samestat(os.fstat(number), path.lstat())
    except FileNotFoundError:
        return False
