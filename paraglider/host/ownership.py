"""The owner of this network namespace: `paraglider.config` (for the daemon) or `paraglider start`,
and the daemons that run in it.

Lives here: the path, the format and the replacement of the state files, the owner in them, and the
lock files of daemons, which also exist without a set-up (a proxy needs none).
Rules: imports little, because the daemon imports it and its workers share that memory. A namespace
has one owner until its set-up is undone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paraglider.errors import OperatorError, PlatformError
from paraglider.host.lock import LockFile, is_held

VERSION = 1
RUN_DIRECTORY = Path("/run/paraglider")

SET_UP = "paraglider.config"
"""The owner of a set-up for the daemon."""
STARTED = "paraglider start"
"""The owner of a static set-up, where the kernel balances without a daemon."""

UNDONE_BY = {SET_UP: "paraglider.config --undo", STARTED: "paraglider stop"}
"""The command that undoes an owner's set-up."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14


def netns_cookie() -> int:
    """The kernel's number of this network namespace, unique until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError as error:
            raise PlatformError(
                f"the kernel has no network namespace cookies: {error.strerror}",
                "use Linux 5.14 or later",
            ) from error
    return int(struct.unpack("=Q", raw)[0])


def boot_id() -> str:
    """The id of this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def state_path(
    directory: Path = RUN_DIRECTORY, cookie: int | None = None, purpose: str = "setup"
) -> Path:
    """The state file of the namespace with ``cookie``, this one when None."""
    return directory / f"{purpose}-{netns_cookie() if cookie is None else cookie:x}.json"


def stored(path: Path) -> dict[str, Any] | None:
    """The content of the file; None if it does not exist or is of an earlier boot.

    Raises ``OperatorError`` when the file is not one of ours.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise OperatorError(
                f"{path} is of another version of Paraglider",
                "undo with the version that wrote it, or reboot",
            )
        if content["boot"] != boot_id():
            return None
        if content.setdefault("owner", SET_UP) not in UNDONE_BY:
            raise ValueError("an unknown owner")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    return content


def replace_file(path: Path, text: str) -> None:
    """Replace the content of the file with ``text`` atomically; raises ``OSError``.

    A missing directory is created, and never removed: other namespaces and the daemon use it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def damaged(path: Path, error: Exception) -> OperatorError:
    """The error for a file that is not a valid state."""
    return OperatorError(
        f"{path} is damaged ({error})",
        "remove it; the changes of the set-up must then be undone by hand",
    )


def owner_of(path: Path) -> str | None:
    """The owner of the set-up in the state file; None without a set-up.

    Raises ``OperatorError`` when the file is not one of ours.
    """
    content = stored(path)
    return None if content is None else str(content["owner"])


def lock_path(name: str, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> Path:
    """The path of the lock ``name`` of the namespace with ``cookie``, this one when None."""
    return directory / f"{name}-{netns_cookie() if cookie is None else cookie:x}.lock"


def announce(cores: Iterable[int] = (), directory: Path = RUN_DIRECTORY) -> LockFile:
    """Take the lock by which ``daemons`` finds this process and ``daemon_cores`` the ``cores`` of
    its workers; raises ``PlatformError`` when it cannot be created.
    """
    lock = LockFile(lock_path(f"daemon-{os.getpid()}", directory))
    with contextlib.suppress(OSError):  # /run is full: the cores are not recorded
        lock.write(json.dumps(list(cores)))
    return lock


class CarrierClaim:
    """The right of one daemon to the BPF carrier of this network namespace, until ``close`` or the
    end of the process; ``held`` is False if another daemon has it.

    By fcntl(2), whose locks forked processes do not inherit: the next daemon need not wait for
    theirs to exit. Raises ``PlatformError`` when the file cannot be made.
    """

    def __init__(self, directory: Path = RUN_DIRECTORY) -> None:
        path = lock_path("carrier", directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._number = os.open(path, flags, 0o600)
        except OSError as error:
            raise PlatformError(f"cannot create the lock {path}: {error.strerror}") from error
        self.held = True
        try:
            fcntl.lockf(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.held = False

    def close(self) -> None:
        """Give it up."""
        os.close(self._number)


def daemons(directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> list[int]:
    """The process ids of the daemons in the network namespace with ``cookie``, this one when None;
    needs root.
    """
    paths = directory.glob(lock_path("daemon-*", directory, cookie).name)
    return sorted(int(path.name.split("-")[1]) for path in paths if is_held(path))


def orphans(directory: Path = RUN_DIRECTORY) -> bool:
    """Whether a daemon has died whose processes have not ended; they get SIGTERM at its death.
    Needs root.
    """
    return not all(map(_runs, daemons(directory)))


def _runs(pid: int) -> bool:
    """Whether the process ``pid`` runs: one that has ended may wait for its parent (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def daemon_cores(pid: int, directory: Path = RUN_DIRECTORY) -> tuple[int, ...]:
    """The cores of the workers of the daemon ``pid``; empty if they are not recorded."""
    try:
        text = lock_path(f"daemon-{pid}", directory).read_text(encoding="ascii")
        return tuple(map(int, json.loads(text)))
    except (OSError, ValueError, TypeError):
        return ()


def refuse_beside_daemon() -> None:
    """Raise ``OperatorError`` when a daemon runs in this network namespace."""
    for pid in daemons():
        raise OperatorError(
            f"a daemon runs here: process {pid} (paraglider)",
            "stop it first: either the daemon or the kernel can balance a service",
        )
