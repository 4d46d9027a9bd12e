"""Who has this network namespace: `paraglider.config` set it up for the daemon, or `start` did, or
a daemon runs in it.

Lives here: the place of the file of ``state``, how such a file is replaced, its outer shape, and
what it says of its owner; and
how a daemon is known to be there, set up or not (a proxy needs no set-up).
Rules: imports little, for the daemon asks too, and its memory is that of its workers. One owner a
namespace, until all is undone.
"""

from __future__ import annotations

import contextlib
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
"""Owner of a set-up for the daemon."""
STARTED = "paraglider start"
"""Owner of a set-up by which the kernel balances alone."""

UNDONE_BY = {SET_UP: "paraglider.config --undo", STARTED: "paraglider stop"}
"""The command that takes back what an owner did."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14


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


def boot_id() -> str:
    """What tells this boot from every other."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def state_path(
    directory: Path = RUN_DIRECTORY, cookie: int | None = None, purpose: str = "setup"
) -> Path:
    """Where the state of the namespace with ``cookie``, this one when None, is kept."""
    return directory / f"{purpose}-{netns_cookie() if cookie is None else cookie:x}.json"


def stored(path: Path) -> dict[str, Any] | None:
    """The content of the file; None where there is none or it is of an earlier boot.

    Raises ``OperatorError`` when the file is not one of ours.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise OperatorError(
                f"{path} is of another version of Paraglider",
                "undo with the version that made it, or reboot",
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
    """Make ``text`` all that is in the file, or leave it as it was; raises ``OSError``.

    Its directory is made where it is missing, and stays: other namespaces and the daemon use it.
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
    """What to say of a file that cannot be read as the state."""
    return OperatorError(
        f"{path} is damaged ({error})",
        "remove it; what the set-up changed must then be taken back by hand",
    )


def owner_of(path: Path) -> str | None:
    """Who has set up what the file remembers; None where it remembers nothing.

    Raises ``OperatorError`` when the file is not one of ours.
    """
    content = stored(path)
    return None if content is None else str(content["owner"])


def lock_path(name: str, directory: Path = RUN_DIRECTORY) -> Path:
    """Where the lock ``name`` of this network namespace is."""
    return directory / f"{name}-{netns_cookie():x}.lock"


def announce(cores: Iterable[int] = (), directory: Path = RUN_DIRECTORY) -> LockFile:
    """Have ``daemons`` name this process for as long as the lock that is returned is held, and
    ``daemon_cores`` the ``cores`` of its workers.

    Raises ``PlatformError`` where there can be none.
    """
    lock = LockFile(lock_path(f"daemon-{os.getpid()}", directory))
    with contextlib.suppress(OSError):  # /run is full: then nobody is told
        lock.write(json.dumps(list(cores)))
    return lock


def daemons(directory: Path = RUN_DIRECTORY) -> list[int]:
    """The process ids of the daemons in this network namespace; asked by root."""
    paths = directory.glob(lock_path("daemon-*", directory).name)
    return sorted(int(path.name.split("-")[1]) for path in paths if is_held(path))


def daemon_cores(pid: int, directory: Path = RUN_DIRECTORY) -> tuple[int, ...]:
    """The cores of the workers of the daemon ``pid``; none where it does not tell."""
    try:
        text = lock_path(f"daemon-{pid}", directory).read_text(encoding="ascii")
        return tuple(map(int, json.loads(text)))
    except (OSError, ValueError, TypeError):
        return ()


def refuse_beside_daemon() -> None:
    """Raise ``OperatorError`` where a daemon balances in this network namespace."""
    for pid in daemons():
        raise OperatorError(
            f"a daemon balances here: process {pid} (paraglider)",
            "stop it first; one of the two can have a service",
        )
