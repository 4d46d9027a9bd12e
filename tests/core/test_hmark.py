"""The hash of HMARK; ``tests/bpf/test_decide_hash.py`` compares it with the kernel's rules."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.hmark import WorkerShare, worker_of

SEEDS = st.integers(0, 2**32 - 1)
CLIENTS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
PORTS = st.integers(0, 0xFFFF)


def slowly(client: bytes, port: int, seed: int, workers: int) -> int:
    """``hmark_hash`` and ``jhash_3words`` of the kernel, with the shifts of ``__jhash_final``."""
    whole = 2**32
    address = 0
    for at in range(0, len(client), 4):
        address ^= int.from_bytes(client[at : at + 4], "big")
    words = [(each + seed + 0xDEADBEEF + 12) % whole for each in (0, address, port * 2**16)]
    for into, by, shift in (
        *((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16)),
        *((0, 2, 4), (1, 0, 14), (2, 1, 24)),
    ):
        rotated = words[by] * 2**shift % whole + words[by] // 2 ** (32 - shift)
        words[into] = ((words[into] ^ words[by]) - rotated) % whole
    return words[2] * workers // whole


@MANY
@given(CLIENTS, PORTS, SEEDS, st.integers(1, 4096))
def test_it_is_the_kernels_procedure(client: bytes, port: int, seed: int, workers: int) -> None:
    """For any client of either family, and any number of workers."""
    assert worker_of(client, port, seed, workers) == slowly(client, port, seed, workers)


@MANY
@given(CLIENTS, PORTS, SEEDS, st.integers(1, 8), st.booleans())
def test_each_flow_is_in_one_share(
    client: bytes, port: int, seed: int, workers: int, by_client: bool
) -> None:
    """By the client's address alone if the family is steered so."""
    both = by_client, by_client
    shares = [WorkerShare(worker, workers, seed, both) for worker in range(workers)]
    hashed = 0 if by_client else port
    found = [worker for worker, share in enumerate(shares) if share.has(client, port)]
    assert found == [worker_of(client, hashed, seed, workers)]


@pytest.mark.parametrize("size", [4, 16])
def test_a_family_is_steered_by_its_own_rule(size: int) -> None:
    """By address in one family says nothing of the other."""
    for family in (4, 16):
        share = WorkerShare(0, 2, 1, (family == 4, family == 16))
        client = bytes(range(1, size + 1))
        whole = len({share.has(client, port) for port in range(100)}) == 1
        assert whole == (family == size)


def test_shares_are_alike() -> None:
    """Of 10,000 ports of one client each of four workers gets about a quarter."""
    found = Counter(worker_of(bytes((10, 0, 0, 1)), port, 7, 4) for port in range(10_000))
    assert set(found) == {0, 1, 2, 3}
    assert all(2300 < count < 2700 for count in found.values())
