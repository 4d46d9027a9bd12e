"""Polls files for changes by stat.

Lives here: ``FilePoller`` (for a caller with its own clock), ``FileWatch`` (for an event loop),
``unreadable``. One stat per file every PAUSE follows links and renames and works on every file
system. inotify would miss writes by another host and the target of a link in another directory, so
it would need a poll as well.
Rules: a change counts when the file has been the same for QUIET polls, so that no file is read
while it is being written. Needs search permission for the directory, but no permission to read the
file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

#: seconds between two polls
PAUSE: Final = 0.5
#: polls
QUIET: Final = 2

#: identifies a version of a file: device, inode, size, mtime; () if there is no file
_State = tuple[int, ...]


class _File:
    """A file, its state when it was last read (``read``) and at the last poll (``last``)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mark_read()

    def mark_read(self) -> None:
        """Take the present state as the one that is read."""
        self.read = self.last = _state(self.path)
        self.same = 0

    def changed(self, gone: bool) -> bool:
        """Whether the file differs from the version read, and has settled; with ``gone`` a removed
        file counts as changed.
        """
        state = _state(self.path)
        self.same = self.same + 1 if state == self.last else 1
        self.last = state
        if state == self.read or self.same < QUIET or not (state or gone):
            return False
        self.read = state
        return True


class FilePoller:
    """Polls the files at ``paths``, which have just been read. A removed file counts as changed
    only with ``gone``; otherwise it is expected to return.
    """

    def __init__(self, paths: Iterable[str | Path], *, gone: bool = False) -> None:
        self._files = [_File(str(path)) for path in paths]
        self._gone = gone
        self._next = 0.0

    def mark_read(self) -> None:
        """Take the present state of all files as the one that is read."""
        for file in self._files:
            file.mark_read()

    def changed(self, now: float) -> list[str]:
        """Poll, at most every PAUSE; returns the files that have changed and settled, each once per
        change. ``now`` is in seconds.
        """
        if now < self._next:
            return []
        self._next = now + PAUSE
        return [file.path for file in self._files if file.changed(self._gone)]

    def wait(self, now: float) -> float:
        """Seconds until the next poll."""
        return max(0.0, self._next - now)


class FileWatch:
    """Calls ``on_change`` with each of ``files`` once at the start (it may have changed since it
    was read), and whenever one has changed or was removed.
    """

    def __init__(self, files: Iterable[str], on_change: Callable[[str], object]) -> None:
        self._files = tuple(files)
        self._on_change = on_change
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Poll until ``stop``."""
        clock = asyncio.get_running_loop().time
        poller = FilePoller(self._files, gone=True)
        changed = list(self._files)
        while not self._stop.is_set():
            for file in changed:
                self._on_change(file)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(poller.wait(clock())):
                    await self._stop.wait()
            changed = poller.changed(clock())

    def stop(self) -> None:
        """End ``run``; ``on_change`` is not called again."""
        self._stop.set()


def unreadable(file: str) -> bool:
    """Whether this process has no right to search the directory of ``file``, so that it cannot
    detect changes.
    """
    try:
        os.scandir(Path(file).parent).close()
        os.stat(file)  # noqa: PTH116 - as in _state
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _state(file: str) -> _State:
    try:
        found = os.stat(file)  # noqa: PTH116 - a path is text here
    except (OSError, ValueError):
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
