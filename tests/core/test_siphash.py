"""SipHash-1-3 gives the values of the paper's procedure, and of CPython's own hash of bytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.siphash import siphash13

WORD = st.integers(0, 2**64 - 1)
#: the key 00 01 … 0f, as in the paper's appendix
KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


def slowly(first: int, second: int, data: bytes, rounds: tuple[int, int]) -> int:
    """§2.2 of the paper, for SipHash-c-d."""
    whole = 2**64
    v = [
        first ^ 0x736F6D6570736575,
        second ^ 0x646F72616E646F6D,
        first ^ 0x6C7967656E657261,
        second ^ 0x7465646279746573,
    ]

    def rotated(number: int, by: int) -> int:
        return number * 2**by % whole + number // 2 ** (64 - by)

    def half(a: int, b: int, by: int) -> None:
        v[a] = (v[a] + v[b]) % whole
        v[b] = rotated(v[b], by) ^ v[a]

    def mix(times: int) -> None:
        for _ in range(times):
            half(0, 1, 13)
            half(2, 3, 16)
            v[0] = rotated(v[0], 32)
            half(2, 1, 17)
            half(0, 3, 21)
            v[2] = rotated(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        mix(rounds[0])
        v[0] ^= word
    v[2] ^= 0xFF
    mix(rounds[1])
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_is_the_papers() -> None:
    """Appendix A: SipHash-2-4 of the bytes 00 … 0e."""
    assert slowly(*KEY, bytes(range(15)), (2, 4)) == 0xA129CA6149BE45E5


@MANY
@given(WORD, WORD, st.binary(max_size=300))
def test_it_is_the_papers_with_one_and_three_rounds(first: int, second: int, data: bytes) -> None:
    """Of every length, also above 255, of which the last byte counts."""
    assert siphash13(first, second, data) == slowly(first, second, data, (1, 3))


@pytest.mark.skipif(
    (sys.hash_info.algorithm, sys.byteorder) != ("siphash13", "little"),
    reason="this Python hashes bytes otherwise",
)
def test_cpython_agrees() -> None:
    """Without randomisation its key is 0 (Python/pyhash.c)."""
    texts = [bytes(range(size)) for size in range(1, 40)]
    code = f"print(*[hash(text) % 2**64 for text in {texts!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(number) for number in done.stdout.split()] == [
        siphash13(0, 0, text) for text in texts
    ]


def test_every_bit_of_the_key_counts() -> None:
    """Another key, another hash."""
    words = [1 << bit for bit in range(64)]
    made = {siphash13(one, 0, b"x") for one in words} | {siphash13(0, one, b"x") for one in words}
    assert len(made) == 128


def test_a_word_of_the_key_has_64_bits() -> None:
    """Bytes alone are hashed."""
    with pytest.raises(TypeError):
        siphash13(0, 0, "text")  # type: ignore[arg-type]
