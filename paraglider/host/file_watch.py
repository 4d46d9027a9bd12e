"""Files that may change, and who is told: by inotify, through watchfiles.

Lives here: ``FileWatch``, ``barred``, ``preload``.
Rules: the directories of the files are watched, not the files, so that one that is renamed into its
place, or appears, is seen. What counts is that the file is another than before (``os.stat``);
that is looked at every POLL seconds besides, for what inotify does not tell: network file systems,
a link's target in another directory. Needs the right to list the directory, none to read the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from watchfiles import awatch

#: seconds after which a file is looked at, whatever inotify says
POLL: Final = 1.0
#: milliseconds of quiet until a change counts as over, and the longest wait for that
_QUIET: Final = 50
_PATIENCE: Final = 500

#: what tells one version of a file from another; () where there is none
_State = tuple[int, ...]


class FileWatch:
    """Watches ``files`` and calls ``tell`` with each at the beginning, and whenever it has changed.

    At the beginning, for it may have changed since whoever is told has read it.
    """

    def __init__(self, files: Iterable[str], tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._states: dict[str, _State | None] = dict.fromkeys(files)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Watch until ``stop``."""
        self._look()
        while not self._stop.is_set():
            try:
                await self._watch()
            except OSError:  # a directory is not there, or not ours to watch
                await self._pause()
                self._look()

    def stop(self) -> None:
        """End ``run``, soon."""
        self._stop.set()

    async def _watch(self) -> None:
        directories = sorted({str(Path(file).parent) for file in self._states})
        async for _ in awatch(
            *directories,
            watch_filter=None,
            debounce=_PATIENCE,
            step=_QUIET,
            rust_timeout=round(POLL * 1000),
            yield_on_timeout=True,
            recursive=False,
            stop_event=self._stop,
        ):
            self._look()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._stop.wait()

    def _look(self) -> None:
        if self._stop.is_set():
            return
        for file, before in self._states.items():
            now = _state(file)
            if now != before:
                self._states[file] = now
                self._tell(file)


def preload() -> None:
    """Import what watchfiles imports at the first watch: anyio and its side of asyncio."""
    anyio.run(anyio.lowlevel.checkpoint)


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
