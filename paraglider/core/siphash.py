"""SipHash-1-3: the hash of ``source`` and ``maglev``, which the BPF program computes too.

Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012, §2, with one round a word
and three at the end, as in Rust and CPython (Python/pyhash.c).
Without the key, a client cannot choose ports or addresses that hit one backend.
Rules: compiled with siphash.pxd, where words are unsigned and cut to 64 bits by themselves;
interpreted, ``_WORD`` cuts them. ``bpf/siphash.h`` is the same in C, and a test compares the two.
"""

from __future__ import annotations

from typing import Final

_WORD: Final = (1 << 64) - 1


def siphash13(first: int, second: int, data: bytes) -> int:
    """The hash, of 64 bits, of ``data`` with the two words of the key, each from 0 to 2⁶⁴-1."""
    v0 = first ^ 0x736F6D6570736575
    v1 = second ^ 0x646F72616E646F6D
    v2 = first ^ 0x6C7967656E657261
    v3 = second ^ 0x7465646279746573
    size = len(data)
    blocks = size // 8 + 1  # the last has the bytes that are left, and the length
    for block in range(blocks + 1):
        word = size if block == blocks - 1 else 0
        word = word << 56 & _WORD
        for at in range(8 * block, min(8 * block + 8, size)):
            byte = data[at] & 0xFF
            word |= byte << 8 * (at & 7)
        v3 ^= word
        if block == blocks:
            v2 ^= 0xFF
        for _ in range(3 if block == blocks else 1):
            v0 = (v0 + v1) & _WORD
            v2 = (v2 + v3) & _WORD
            v1 = (v1 << 13 & _WORD | v1 >> 51) ^ v0
            v3 = (v3 << 16 & _WORD | v3 >> 48) ^ v2
            v0 = v0 << 32 & _WORD | v0 >> 32
            v2 = (v2 + v1) & _WORD
            v0 = (v0 + v3) & _WORD
            v1 = (v1 << 17 & _WORD | v1 >> 47) ^ v2
            v3 = (v3 << 21 & _WORD | v3 >> 43) ^ v0
            v2 = v2 << 32 & _WORD | v2 >> 32
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3
