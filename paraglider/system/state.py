"""What a set-up changed in this network namespace, kept in a file so that it can be undone.

Lives here: the file and its format, and the lock that keeps two set-ups apart.
Rules: /run is shared by network namespaces, so the file's name has the namespace's cookie. A
change is stored before it is made: a set-up that dies half-way can still be undone. The file is
replaced as a whole, never written in place.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paraglider.errors import OperatorError, PlatformError
from paraglider.system.changes.base import Change
from paraglider.system.changes.records import from_record, to_record

VERSION = 1
RUN_DIRECTORY = Path("/run/paraglider")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14
_LOCK = "\0paraglider-setup"


def netns_cookie() -> int:
    """The number that the kernel gave this network namespace, unique until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError as error:
            raise PlatformError(
                f"the kernel does not tell its network namespaces apart: {error.strerror}",
                "Linux 5.14 or later does",
            ) from error
    return int(struct.unpack("=Q", raw)[0])


class StateFile:
    """The stored changes of one network namespace, in the order in which they were made.

    ``purpose`` keeps those of the balancer's set-up apart from those of a backend's.
    """

    def __init__(
        self, directory: Path = RUN_DIRECTORY, cookie: int | None = None, *, purpose: str = "setup"
    ) -> None:
        name = f"{purpose}-{netns_cookie() if cookie is None else cookie:x}.json"
        self.path = directory / name

    def load(self) -> list[Change]:
        """The stored changes; none where there is no file or it is of an earlier boot.

        Raises ``OperatorError`` when the file is not one of ours.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                raise OperatorError(
                    f"{self.path} is of another version of Paraglider",
                    "undo with the version that made it, or reboot",
                )
            if content["boot"] != _boot_id():
                return []
            return [from_record(record) for record in content["changes"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OperatorError(
                f"{self.path} is damaged ({error})",
                "remove it; what the set-up changed must then be taken back by hand",
            ) from error

    def store(self, changes: Iterable[Change]) -> None:
        """Replace the file; without changes, remove it.

        The directory stays: other namespaces and the daemon use it.
        """
        records = [to_record(change) for change in changes]
        try:
            if not records:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            content = {"version": VERSION, "boot": _boot_id(), "changes": records}
            self._replace(json.dumps(content, indent=1))
        except OSError as error:
            raise PlatformError(
                f"cannot keep the state of the set-up in {self.path}: {error.strerror}",
                "without it nothing could be undone, so nothing is changed",
            ) from error

    def _replace(self, text: str) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".setup-", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the lock of this network namespace; raises ``OperatorError`` when another does."""
    # Abstract Unix sockets belong to a network namespace and vanish with their process.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(_LOCK)
        except OSError as error:
            raise OperatorError(
                "another set-up of paraglider is at work here", "wait until it has ended"
            ) from error
        yield


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()
