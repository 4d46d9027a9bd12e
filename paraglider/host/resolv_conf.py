"""The name servers of this host: the text of /etc/resolv.conf, polled for changes.

Lives here: ``ResolvConf``. The supervisor reads the file, so that the process that queries the DNS
needs no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from paraglider.host.file_watch import FilePoller

PATH: Final = Path("/etc/resolv.conf")
#: characters that are read
LONGEST: Final = 1 << 16


class ResolvConf:
    """The file at ``path``; ``text`` is its content, empty if it cannot be read."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self._poller = FilePoller([path], gone=True)
        self.text = _read(path)

    def changed(self, now: float) -> bool:
        """Whether ``text`` has changed since the last call; ``now`` is seconds."""
        before = self.text
        if self._poller.changed(now):
            self.text = _read(self._path)
        return self.text != before

    def wait(self, now: float) -> float:
        """Seconds until the next poll."""
        return self._poller.wait(now)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST)
    except OSError:
        return ""
