"""The seed of the steering and of the kernel's hash, alike for the set-up and for the daemon.

Lives here: ``steering_seed``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from paraglider.errors import PlatformError

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def steering_seed(machine_id: Path = _MACHINE_ID) -> int:
    """The 32-bit seed of the steering: stable on a machine, not to be guessed from outside.

    A machine without an id gets a seed that lasts until it boots again.
    """
    for source in (machine_id, _BOOT_ID):
        if source.is_file() and (text := source.read_text(encoding="ascii").strip()):
            digest = hashlib.sha256(b"paraglider steering " + text.encode()).digest()
            return int.from_bytes(digest[:4], "big")
    raise PlatformError("the machine has neither a machine id nor a boot id")
