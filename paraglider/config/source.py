"""Reads the text of a file, of any format.

Lives here: ``read``, ``read_for``, ``read_from``, ``decoded``.
Rules: reads at most ``reader.MAX_BYTES``, and only regular files, because reading a pipe without a
writer would never end. Raises only ``ConfigError``.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import BinaryIO

from paraglider.config import reader
from paraglider.config.diagnostics import ConfigError, Mark, PlacedProblem


def read(file: str, remedy: str = "give another with -c FILE", *, pipes: bool = False) -> str:
    """The text in ``file``; raises ``ConfigError``. ``remedy`` is the remedy for a missing file.

    With ``pipes`` the file may be a pipe, such as a shell's ``<(command)``; the call then blocks.
    """
    return _read(file, remedy, None, pipes)[0]


def read_for(user: str, file: str, remedy: str) -> tuple[str, bool]:
    """As ``read``, and whether ``user`` may read the file too; if not, messages must not contain
    the file's text.
    """
    return _read(file, remedy, user, False)


def _read(file: str, remedy: str, user: str | None, pipes: bool) -> tuple[str, bool]:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if pipes else os.O_NONBLOCK)
    try:
        with os.fdopen(os.open(file, flags), "rb") as stream:
            kind = os.fstat(stream.fileno()).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError
            if not stat.S_ISREG(kind) and not (pipes and stat.S_ISFIFO(kind)):
                raise _refusal(file, "this is no regular file", "name one")
            told = user is None or os.geteuid() != 0 or _may_read(user, stream.fileno())
            return read_from(stream, file), told
    except FileNotFoundError:
        raise _refusal(file, "there is no such file", remedy) from None
    except IsADirectoryError:
        raise _refusal(file, "this is a directory", "name a file in it") from None
    except PermissionError:
        remedy = "read it as root, or make it readable for this user"
        raise _refusal(file, "it may not be read", remedy) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _refusal(repr(file), f"cannot be read ({reason})", "name a file") from None


def _refusal(file: str, what: str, remedy: str, mark: Mark | None = None) -> ConfigError:
    return ConfigError([PlacedProblem(file, mark, what, remedy)])


def _may_read(user: str, number: int) -> bool:
    """Whether ``user`` could open the file of the descriptor ``number``, by the modes of the file
    and its parent directories.
    """
    try:
        found = pwd.getpwnam(user)
        groups = set(os.getgrouplist(user, found.pw_gid))
        uid = found.pw_uid
    except KeyError:
        uid, groups = -1, set()

    def may(status: os.stat_result, right: int) -> bool:
        """``right`` is a digit of a mode: 4 to read, 1 to enter."""
        shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
        return bool(status.st_mode >> shift & right)

    path = Path(f"/proc/self/fd/{number}").readlink()
    return may(os.fstat(number), 4) and all(may(above.stat(), 1) for above in path.parents)


def read_from(stream: BinaryIO, file: str) -> str:
    """The text in ``stream``, which messages call ``file``; raises ``ConfigError``, ``OSError``."""
    content = stream.read(reader.MAX_BYTES + 1)
    if len(content) > reader.MAX_BYTES:
        limit = reader.MAX_BYTES // 1_000_000
        what = f"the file is larger than {limit} MB"
        raise _refusal(file, what, "is it the right one?", Mark(1, 1))
    return decoded(content, file)


def decoded(content: bytes, file: str) -> str:
    """``content`` as text, a byte order mark left out; raises ``ConfigError``."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        what = f"byte 0x{content[error.start]:02x} is no UTF-8"
        raise _refusal(file, what, "save the file in UTF-8", Mark(line, column)) from None
