"""The control socket: made before privileges are dropped, removed at the end.

Rules: its directory is readable by all, the socket by root, and by the group of the user that
announces VIPs, if there is one (``connections`` admits that user alone). A socket that a process
listens on belongs to another daemon and is not replaced; one without a listener is a stale one.
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
    """A listening Unix socket at ``path``, for root and ``group``; raises ``OperatorError`` if it
    cannot be made.
    """

    def __init__(self, path: str, group: int | None = None) -> None:
        self.path = Path(path)
        self._group = group
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
        """Stop listening, and remove the socket unless another daemon has replaced it."""
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
        umask, own = os.umask(0o177 if self._group is None else 0o117), os.getegid()
        try:
            if self._group is not None:  # by which it is made: changing it takes CAP_CHOWN
                os.setegid(self._group)
            self.listening.bind(str(self.path))
        finally:
            os.setegid(own)
            os.umask(umask)


def _answers(path: str) -> bool:
    """Whether a process listens at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            # A full backlog has a listener too.
            return error.errno == errno.EAGAIN or isinstance(error, TimeoutError)
    return True
