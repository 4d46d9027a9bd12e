"""A file's bytes, and the text in them, whichever format it has.

Lives here: ``read``, ``decoded``.
Rules: never more than ``document.MAX_BYTES`` is read, whatever the file (a device has no end).
Nothing but ``ConfigError`` is raised.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from paraglider.config import document
from paraglider.config.problem import ConfigError


def read(file: str, remedy: str = "give another with -c FILE") -> str:
    """The text in ``file``; raises ``ConfigError``. ``remedy`` is that against a missing file."""
    try:
        with Path(file).open("rb") as stream:
            return read_from(stream, file)
    except FileNotFoundError:
        raise ConfigError([f"{file}: there is no such file; {remedy}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{file}: this is a directory; name a file in it"]) from None
    except PermissionError:
        remedy = "read it as root, or make it readable for this user"
        raise ConfigError([f"{file}: it may not be read; {remedy}"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError([f"{file!r}: cannot be read ({reason}); name a file"]) from None


def read_from(stream: BinaryIO, file: str) -> str:
    """The text in ``stream``, which messages call ``file``; raises ``ConfigError``, ``OSError``."""
    content = stream.read(document.MAX_BYTES + 1)
    if len(content) > document.MAX_BYTES:
        limit = document.MAX_BYTES // 1_000_000
        raise ConfigError([f"{file}:1:1: the file is larger than {limit} MB; is it the right one?"])
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
        place = f"{file}:{line}:{column}"
        raise ConfigError([f"{place}: {what}; save the file in UTF-8"]) from None
