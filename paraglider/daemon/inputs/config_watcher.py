"""Watches the daemon's own file for changes (`watch: true`).

One ``stat`` every PAUSE seconds: it follows links and renames and works on every file system, where
inotify would need a thread or a process with access to the directory.

Lives here: ``ConfigWatcher``.
Rules: a change counts when the file has been the same for QUIET readings, so that a file that is
being written is not read half. A file that is missing is no change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: seconds between two looks
PAUSE: Final = 0.5
#: looks
QUIET: Final = 2

#: identifies a version of a file; () where there is none
_State = tuple[int, ...]


class ConfigWatcher:
    """The file at ``path``, which has just been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self.note()

    def note(self) -> None:
        """It is about to be read as it is now."""
        self._read = self._last = self._state()
        self._same = 0

    def changed(self, now: float) -> bool:
        """Whether it is another than the one that was read, and at rest; once a change."""
        if now < self._next:
            return False
        self._next = now + PAUSE
        state = self._state()
        self._same = self._same + 1 if state == self._last else 1
        self._last = state
        if state in ((), self._read) or self._same < QUIET:
            return False
        self._read = state
        return True

    def wait(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - now)

    def _state(self) -> _State:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
