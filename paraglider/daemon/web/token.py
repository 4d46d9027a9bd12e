"""The token for changes on the stats page: its source, and its check.

With ``stats.token_file`` it is the content of that file; otherwise a new one is made at every
start, in a file beside the control socket that only root can read and that is removed when the
daemon ends.

Rules: after the start only the supervisor has the token's hash, and compares it; the http process
has no copy.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from paraglider.config.model import Config
from paraglider.errors import OperatorError

#: least characters of a token: 128 bits in base 64
SHORTEST: Final = 22
_NAME: Final = "stats.token"


class Token:
    """The token of ``config``; raises ``OperatorError`` if it cannot be read or made.

    ``digest`` is its hash, None if the page is read-only; ``path`` is the file that has it.
    """

    def __init__(self, config: Config) -> None:
        self.digest: bytes | None = None
        self.path: Path | None = None
        self._created = False
        stats = config.stats
        if stats is None or not stats.admin:
            return
        if stats.token_file is not None:
            self.path = Path(stats.token_file)
            text = _read(self.path)
        else:
            self.path = Path(config.control.socket).with_name(_NAME)
            text = secrets.token_urlsafe(32)
            self._write(text)
        self.digest = digest(text)

    def close(self) -> None:
        """Remove the file, if it was made here."""
        if self._created and self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        assert self.path is not None  # noqa: S101 - said above
        try:
            self.path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="ascii") as file:
                file.write(f"{text}\n")
        except OSError as error:
            raise OperatorError(
                f"the token file {self.path} cannot be made: {error.strerror}",
                "name a file of your own as `token_file` under `stats`",
            ) from error
        self._created = True


def digest(text: str) -> bytes:
    """The hash of a token; surrogates, which no token has, are hashed too."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def matches(given: object, wanted: bytes | None) -> bool:
    """Compare the hash of ``given`` with ``wanted`` in constant time."""
    if wanted is None or not isinstance(given, str):
        return False
    return hmac.compare_digest(digest(given), wanted)


def _read(path: Path) -> str:
    make = f"make one: (umask 077; openssl rand -hex 32 > {path})"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe might never end
            raise OSError(errno.EINVAL, "it is no regular file")
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise OperatorError(f"`token_file` {path} cannot be read: {why}", make) from error
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise OperatorError(f"`token_file` {path} is not its owner's alone", f"chmod 600 {path}")
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise OperatorError(f"`token_file` {path} has no token of {SHORTEST} characters", make)
    return text
