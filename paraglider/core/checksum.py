"""The Internet checksum in arithmetic modulo 65,535 (RFC 1071, RFC 1624).

The one's-complement sum of 16-bit words equals the big-endian number of the bytes modulo 65,535, so
``int.from_bytes(data, "big") % 65535`` sums any length at C speed. Zero has two representations, 0
and 0xffff. A header's field is the complement of a sum that is never zero in a real packet (a
version or an address is set), so its range is 0 to 0xfffe.
Rules: pure functions; ``delta`` values are sums (0 to 65,534), never complements.
"""

from __future__ import annotations

import contextlib
from typing import Final

# The state of the transport checksum of a packet in a buffer, from queue I/O.
COMPLETE: Final = 0  # as on the wire
UNFINISHED: Final = 1  # the pseudo-header's sum only: computed in full after rewriting
KERNELS: Final = 2  # the kernel computes it when it splits the packet: keep the pseudo-sum

Buffer = bytes | bytearray | memoryview


def ones_sum(data: Buffer) -> int:
    """One's-complement sum of ``data`` as big-endian 16-bit words, modulo 65,535.

    An odd last byte counts as the high half of a word padded with zero (RFC 1071 §4.1).
    """
    number = int.from_bytes(data, "big")
    return (number << 8 if len(data) & 1 else number) % 65535


def sum_of(buf: bytearray, start: int, stop: int) -> int:
    """``ones_sum`` of ``buf[start:stop]`` for the packet path; has a compiled twin."""
    number = int.from_bytes(buf[start:stop], "big")
    return (number << 8 if (stop - start) & 1 else number) % 65535


with contextlib.suppress(ImportError):
    from paraglider.core._sums import sum_of  # noqa: F401 - the compiled twin takes its place


def delta(old: Buffer, new: Buffer) -> int:
    """The change of a sum when ``new`` replaces ``old`` (both of even length), modulo 65,535."""
    return (ones_sum(new) - ones_sum(old)) % 65535


def update(checksum: int, change: int) -> int:
    """The checksum after the summed bytes changed by ``change`` (RFC 1624, equation 3).

    A wrong checksum stays wrong, so the receiver still rejects the packet.
    """
    return (checksum - change) % 65535


def internet_checksum(data: Buffer, initial: int = 0) -> int:
    """The checksum of ``data``, whose own field must be zero; ``initial`` is a sum to add.

    The checksum of all-zero data is 0xffff (RFC 1071).
    """
    number = ones_sum(data) + initial
    if number == 0 and not any(data):
        return 0xFFFF
    return (0xFFFF - number % 65535) % 65535
