"""The hash of the HMARK target, by which the kernel chooses the worker of a packet.

The rules (``netfilter.rules.steering``) hash the client's end only. HMARK sorts the two addresses
and the two ports, and an end that is not hashed is 0: so the client's address is the second word of
the hash, and its port the upper half of the third.

Lives here: ``worker_of``, and ``WorkerShare``, the flows of one worker.
Source: Linux, net/netfilter/xt_HMARK.c (hmark_hash) and include/linux/jhash.h (jhash_3words).
Rules: compiled with hmark.pxd, where words are unsigned and cut to 32 bits by themselves;
interpreted, ``_WORD`` cuts them. ``bpf/steer.h`` is the same in C; a test compares both with the
kernel's rules.
"""

from __future__ import annotations

from typing import Final

_WORD: Final = (1 << 32) - 1
_SEED: Final = 0xDEADBEEF + (3 << 2)  # JHASH_INITVAL, and the number of words


def worker_of(client: bytes, port: int, seed: int, workers: int) -> int:
    """The index of the worker, of ``workers``, that gets the packets of ``client`` (4 or 16 bytes)
    with its ``port``: 0 for ICMP, and where the address alone is hashed. ``seed`` has 32 bits.
    """
    a = seed + _SEED & _WORD
    b, c = a, a
    word = 0
    for at in range(len(client)):
        byte = client[at] & 0xFF
        word ^= byte << 24 - 8 * (at & 3)
    b = b + word & _WORD
    c = c + (port << 16) & _WORD
    c = (c ^ b) - (b << 14 & _WORD | b >> 18) & _WORD
    a = (a ^ c) - (c << 11 & _WORD | c >> 21) & _WORD
    b = (b ^ a) - (a << 25 & _WORD | a >> 7) & _WORD
    c = (c ^ b) - (b << 16 & _WORD | b >> 16) & _WORD
    a = (a ^ c) - (c << 4 & _WORD | c >> 28) & _WORD
    b = (b ^ a) - (a << 14 & _WORD | a >> 18) & _WORD
    c = (c ^ b) - (b << 24 & _WORD | b >> 8) & _WORD
    return c * workers >> 32


class WorkerShare:
    """The flows whose packets are steered to number ``worker`` of ``workers``, with ``seed``;
    ``by_client`` says for IPv4 and IPv6 whether the client's address alone is hashed.
    """

    __slots__ = ("_by_client4", "_by_client6", "_seed", "_worker", "_workers")

    def __init__(
        self, worker: int, workers: int, seed: int, by_client: tuple[bool, bool] = (False, False)
    ) -> None:
        self._worker = worker
        self._workers = workers
        self._seed = seed
        self._by_client4, self._by_client6 = by_client

    def has(self, client: bytes, port: int) -> bool:
        """Whether a flow of ``client`` and its ``port`` (0 for ICMP) is one of them."""
        by_client = self._by_client4 if len(client) == 4 else self._by_client6
        found = worker_of(client, 0 if by_client else port, self._seed, self._workers)
        return found == self._worker
