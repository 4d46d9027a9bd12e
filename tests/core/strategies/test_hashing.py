"""The hash of source and maglev depends only on seed and purpose."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paraglider.core.pool import Backend
from paraglider.core.strategies.hashing import flow_hash_key, identity, keyed


def digest(seed: int, purpose: bytes, data: bytes) -> bytes:
    """The hash of ``data``."""
    state = keyed(seed, 8, purpose)
    state.update(data)
    return state.digest()


def test_another_process_agrees() -> None:
    """The same seed gives the same hash in a process with another hash randomisation."""
    program = (
        "from paraglider.core.strategies.hashing import keyed;"
        "h = keyed(7, 8, b'purpose'); h.update(b'data'); print(h.hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(7, b"purpose", b"data").hex()


def test_seed_and_purpose_matter() -> None:
    """Another seed, another purpose or other data give another hash."""
    made = {digest(s, p, d) for s in (0, 1, 2**64 - 1) for p in (b"a", b"b") for d in (b"x", b"y")}
    assert len(made) == 12


def test_a_seed_has_its_bounds() -> None:
    """A seed of more than 64 bits is refused, not cut."""
    with pytest.raises(OverflowError):
        keyed(2**64, 8, b"")


def test_identity_is_address_and_port() -> None:
    """Name and weight do not count; the mapped port does."""
    address = bytes((10, 0, 0, 1))
    assert identity(Backend("a", address, 80, 1)) == identity(Backend("b", address, 80, 9))
    assert identity(Backend("a", address, 80)) != identity(Backend("a", address, 81))
    assert identity(Backend("a", address)) == address + b"\0\0"


def test_two_purposes_have_two_keys() -> None:
    """Of flows: source and maglev draw apart, with the same seed too."""
    keys = {flow_hash_key(seed, purpose) for seed in (0, 7) for purpose in (b"a", b"b")}
    assert len({word for key in keys for word in key}) == 8
