"""Files that may change, polled by stat.

Lives here: ``FilePoller`` (which files have changed, for a caller with a clock of its own),
``FileWatch`` (the same for an event loop), ``barred``.
One stat per file every PAUSE follows links and renames and works on every file system; a
notification of the kernel (inotify) misses what another host writes, and the target of a link in
another directory, so that a poll is needed beside it.
Rules: a change counts when the file has been the same for QUIET polls, so that no file is read
while it is being written. Needs the right to search the directory, none to read the file.
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

#: what tells one version of a file from another; () where there is none
_State = tuple[int, ...]


class _File:
    """A file with the state in which it was read, and the last one that a poll has seen."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.note()

    def note(self) -> None:
        """It is about to be read as it is now."""
        self.read = self.last = _state(self.path)
        self.same = 0

    def changed(self, gone: bool) -> bool:
        """Whether it differs from what was read, and has settled; with ``gone`` also where it is
        not there.
        """
        state = _state(self.path)
        self.same = self.same + 1 if state == self.last else 1
        self.last = state
        if state == self.read or self.same < QUIET or not (state or gone):
            return False
        self.read = state
        return True


class FilePoller:
    """The files at ``paths``, which have just been read. A file that is gone has changed only with
    ``gone``: else it is waited for.
    """

    def __init__(self, paths: Iterable[str | Path], *, gone: bool = False) -> None:
        self._files = [_File(str(path)) for path in paths]
        self._gone = gone
        self._next = 0.0

    def note(self) -> None:
        """They are about to be read as they are now."""
        for file in self._files:
            file.note()

    def changed(self, now: float) -> list[str]:
        """The files that have changed and settled, each once a change. ``now`` is in seconds; polls
        no more often than every PAUSE.
        """
        if now < self._next:
            return []
        self._next = now + PAUSE
        return [file.path for file in self._files if file.changed(self._gone)]

    def wait(self, now: float) -> float:
        """Seconds until the next poll."""
        return max(0.0, self._next - now)


class FileWatch:
    """Calls ``tell`` with each of ``files`` at the beginning, for it may have changed since it was
    read, and whenever one has changed or is gone.
    """

    def __init__(self, files: Iterable[str], tell: Callable[[str], object]) -> None:
        self._files = tuple(files)
        self._tell = tell
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Poll until ``stop``."""
        clock = asyncio.get_running_loop().time
        poller = FilePoller(self._files, gone=True)
        changed = list(self._files)
        while not self._stop.is_set():
            for file in changed:
                self._tell(file)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(poller.wait(clock())):
                    await self._stop.wait()
            changed = poller.changed(clock())

    def stop(self) -> None:
        """End ``run``, soon; nothing is told any more."""
        self._stop.set()


def barred(file: str) -> bool:
    """Whether this process may not look into the directory of ``file``, and so sees no change."""
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
