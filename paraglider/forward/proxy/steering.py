"""Which of the sockets that share an address gets a connection, by the client's address.

The kernel asks a program of classic BPF for the number of the socket, among those that listen
(SO_ATTACH_REUSEPORT_CBPF, socket(7); reuseport_select_sock in net/core/sock_reuseport.c). The IP
header is at negative offsets. Without a program, or with a number that no socket has, the kernel
takes a hash of both ends' addresses and ports, so that the connections of a client come to all
workers.

Lives here: ``program`` (pure), ``steer`` and ``unsteer``.
Rules: all sockets of an address share one program, the last that any of them has attached. Only
sockets that listen have one: before, it would keep them from listening (EADDRINUSE).
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final

_SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h
_SO_DETACH_REUSEPORT_BPF: Final = 68
_SKF_NET_OFF: Final = -0x100000  # linux/filter.h: the IP header
# linux/bpf_common.h
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_TO_X: Final = 0x07  # BPF_MISC | BPF_TAX
_XOR_X: Final = 0xAC  # BPF_ALU | BPF_XOR | BPF_X
_MULTIPLY: Final = 0x24  # BPF_ALU | BPF_MUL | BPF_K
_SHIFT: Final = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_REMAINDER: Final = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_RETURN_A: Final = 0x16  # BPF_RET | BPF_A
#: the source address: its offset in the IP header, and its 32-bit words (RFC 791, RFC 8200)
_SOURCE: Final = {socket.AF_INET: (12, 1), socket.AF_INET6: (8, 4)}


def program(family: int, sockets: int, key: int) -> bytes:
    """An array of struct sock_filter that returns a number below ``sockets`` by the source address
    of a packet of ``family``: the upper half of the product of its words, combined by XOR, and the
    odd number ``key``, modulo ``sockets``.
    """
    return b"".join(
        struct.pack("=HBBI", code, 0, 0, value & 0xFFFF_FFFF)
        for code, value in _lines(family, sockets, key)
    )


def _lines(family: int, sockets: int, key: int) -> Iterator[tuple[int, int]]:
    offset, words = _SOURCE[socket.AddressFamily(family)]
    for number in range(words):
        if number:
            yield _TO_X, 0
        yield _LOAD, _SKF_NET_OFF + offset + 4 * number
        if number:
            yield _XOR_X, 0
    yield _MULTIPLY, key
    yield _SHIFT, 16
    yield _REMAINDER, sockets
    yield _RETURN_A, 0


def steer(end: socket.socket, sockets: int, key: int) -> None:
    """Have each client meet one of the ``sockets`` that share the address of ``end``; all of them
    listen, or will, and must get the same ``key``. Raises OSError.
    """
    code = ctypes.create_string_buffer(program(end.family, sockets, key))
    given = struct.pack("@HP", len(code) // 8, ctypes.addressof(code))
    end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, given)


def unsteer(end: socket.socket) -> None:
    """Have the connections of a client meet all sockets again. Raises OSError."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:  # there is none: another socket's owner was first
            raise
