"""The hash of ``source`` and ``maglev``: keyed with the seed, the same on every machine.

BLAKE2b (RFC 7693) with the seed as its key: whoever does not know the seed cannot choose ports
or addresses that meet on one backend. Python's own ``hash`` differs from process to process and
CRCs are linear, so that backends would get shares that are far from even.
Rules: nothing here depends on the process, the machine or the order of the configuration.
"""

from __future__ import annotations

from hashlib import blake2b

from paraglider.core.pool import Backend


def keyed(seed: int, size: int, purpose: bytes) -> blake2b:
    """A hash of ``size`` bytes to be copied for each use; two purposes (≤ 16 bytes) never agree.

    ``seed`` is a whole number from 0 to 2⁶⁴-1.
    """
    return blake2b(digest_size=size, key=seed.to_bytes(8, "big"), person=purpose)


def identity(backend: Backend) -> bytes:
    """What a backend is hashed by: its address and mapped port, and not its place or its name."""
    return backend.address + backend.port.to_bytes(2, "big")
