"""The control socket itself: made before privileges go, removed at the end.

Rules: its directory is everybody's to see, the socket root's alone. A socket that somebody answers
at is another daemon's and is left alone; one that nobody does was left by a daemon that is gone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from paraglider.errors import OperatorError

_BACKLOG: Final = 64
_SECONDS: Final = 2.0


class ControlSocket:
    """A Unix socket at ``path`` that listens; raises ``OperatorError`` where it cannot be made."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if _answers(path):
            raise OperatorError(
                f"another paraglider answers at {path}",
                "stop it, or name another `socket` under `control`",
            )
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._make()
        except OSError as error:
            self.listening.close()
            raise OperatorError(
                f"the control socket {path} cannot be made: {error.strerror or error}",
                "name another path as `socket` under `control`",
            ) from error
        self.listening.listen(_BACKLOG)
        self._identity = self.path.stat().st_ino

    def close(self) -> None:
        """Listen no more, and remove the socket unless it is another's by now."""
        self.listening.close()
        try:
            if self.path.stat().st_ino == self._identity:
                self.path.unlink()
        except OSError:
            return

    def _make(self) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            directory.mkdir(parents=True)
            directory.chmod(0o755)
        if self.path.exists() and stat.S_ISSOCK(self.path.lstat().st_mode):
            self.path.unlink()
        before = os.umask(0o177)
        try:
            self.listening.bind(str(self.path))
        finally:
            os.umask(before)


def _answers(path: str) -> bool:
    """Whether somebody listens at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            # A full backlog is somebody's too.
            return error.errno == errno.EAGAIN or isinstance(error, TimeoutError)
    return True
