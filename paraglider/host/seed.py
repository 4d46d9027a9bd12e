"""The seed of this host, the key of every hash that decides about flows if the file has no `seed`.

Lives here: ``machine_seed`` (creates it at the first call), ``known_seed`` (only reads it) and
``steering_seed`` (32 bits for the kernel's hashes).
Rules: 64 random bits in a file that only root can read, kept over reboots. Clients of ``source``
keep their backends, and clients cannot predict the backend of a packet. The file is written once;
the set-up and the daemon read the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from paraglider.errors import PlatformError

SEED_FILE: Final = Path("/var/lib/paraglider/seed")
BITS: Final = 64

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _silent(_: str) -> None:
    """Ignore the warning."""


def machine_seed(warn: Callable[[str], None] = _silent, file: Path = SEED_FILE) -> int:
    """The seed in ``file``; a new one is created and stored if there is none.

    If it cannot be stored (a container without ``/var/lib``), a hash of the machine id or boot id
    is used and ``warn`` gets a warning. Later calls in one process return the same seed. Raises
    ``PlatformError`` when the host has no id either.
    """
    seed, warning = _machine_seed(file)
    if warning:
        warn(warning)
    return seed


def known_seed(file: Path = SEED_FILE) -> int | None:
    """The seed in ``file``; None if it does not exist or is not readable."""
    try:
        return _parsed(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def steering_seed(given: int | None, file: Path = SEED_FILE) -> int:
    """32 bits for the hashes of the kernel, derived from ``given``, the `seed` of the configuration
    file, or from ``machine_seed`` if it is None.
    """
    seed = machine_seed(file=file) if given is None else given
    digest = hashlib.sha256(b"paraglider steering %d" % seed).digest()
    return int.from_bytes(digest[:4], "big")


@cache
def _machine_seed(file: Path) -> tuple[int, str]:
    """The seed, and a warning if it could not be stored."""
    try:
        return _parsed(file.read_text(encoding="ascii")), ""
    except (FileNotFoundError, NotADirectoryError):
        damaged = False
    except ValueError:
        damaged = True
    except OSError as error:
        return _unkept(), _warning(file, error)
    try:
        seed = _store(file, secrets.randbits(BITS), replace=damaged)
    except OSError as error:
        return _unkept(), _warning(file, error)
    if damaged:
        return seed, f"{file} was damaged: a new seed was created, and hashed clients move"
    return seed, ""


def _parsed(text: str) -> int:
    """The number in ``text``; raises ``ValueError`` if it is not one of ``BITS`` bits."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(1 << BITS))):
        raise ValueError("not a seed")
    seed = int(digits)
    if seed >> BITS:
        raise ValueError("a seed of too many bits")
    return seed


def _store(file: Path, seed: int, *, replace: bool) -> int:
    """Store ``seed`` and return it; without ``replace``, return the seed of a process that stored
    one first.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".seed-", dir=file.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{seed}\n")
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(file)
            return seed
        try:
            file.hardlink_to(temporary)
        except FileExistsError:
            return _parsed(file.read_text(encoding="ascii"))
        return seed
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _unkept(machine_id: Path = _MACHINE_ID) -> int:
    """A seed from the machine id or boot id, which clients do not know."""
    for source in (machine_id, _BOOT_ID):
        if source.is_file() and (text := source.read_text(encoding="ascii").strip()):
            digest = hashlib.sha256(b"paraglider seed " + text.encode()).digest()
            return int.from_bytes(digest[:8], "big")
    raise PlatformError("the machine has neither a machine id nor a boot id")


def _warning(file: Path, error: OSError) -> str:
    return (
        f"the seed of hashes cannot be stored in {file} ({error.strerror}): it is derived from the"
        " machine id; give the services a `seed`, or make the directory writable"
    )
