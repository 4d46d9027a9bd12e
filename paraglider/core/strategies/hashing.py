"""The hashes of ``source`` and ``maglev``: keyed with the seed, the same on every machine.

Backends are hashed by BLAKE2b (RFC 7693) with the seed as its key, flows by SipHash
(``core.siphash``), which the BPF program computes too: without the seed, a client cannot choose
ports or addresses that hit one backend. Python's ``hash`` differs between processes, and CRCs are
linear, which makes the shares of the backends uneven.
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


def flow_hash_key(seed: int, purpose: bytes) -> tuple[int, int]:
    """The key of SipHash, two words of 64 bits, of which two purposes never have the same."""
    digest = keyed(seed, 16, purpose).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def identity(backend: Backend) -> bytes:
    """The hash input of a backend: its address and mapped port, not its position or name."""
    return backend.address + backend.port.to_bytes(2, "big")
