"""Sends whole IP packets, with headers that are not the kernel's, and asks for routes to their
destination.

A sent packet is routed like the host's own, passes OUTPUT, and has the mark ``mark``, by which our
rules recognize it. If a raw socket of the outer header's protocol exists, the kernel learns the MTU
of the path from a router's Fragmentation Needed or Packet Too Big, for all processes of the host
(Linux, net/ipv4/raw.c: raw_err; net/ipv6/raw.c: rawv6_err, only with IPV6_RECVERR). So each
protocol has such a socket; a filter drops all its packets, and the errors are not read.

Lives here: ``RawOutput``.
Rules: the sockets are opened at once, which needs CAP_NET_RAW and CAP_NET_ADMIN; later calls need
neither. Nothing blocks.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import Final

from paraglider.errors import PlatformError

#: protocols of outer headers by family: IP in IP, UDP
_PROTOCOLS: Final = {
    socket.AF_INET: (4, socket.IPPROTO_UDP),
    socket.AF_INET6: (41, socket.IPPROTO_UDP),
}
_ERRORS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),  # IP_RECVERR, linux/in.h
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),  # IPV6_RECVERR, linux/in6.h
}
_MTU: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 14),  # IP_MTU, linux/in.h
    socket.AF_INET6: (socket.IPPROTO_IPV6, 24),  # IPV6_MTU
}
_SO_SNDBUFFORCE: Final = 32
_SO_ATTACH_FILTER: Final = 26
_SEND_BUFFER: Final = 16 << 20
_DISCARD: Final = 9  # the port that a route is asked for; nothing is sent to it
#: struct sock_filter: BPF_RET | BPF_K, which accepts 0 bytes of a packet
_NOTHING: Final = struct.pack("=HBBI", 6, 0, 0, 0)


class RawOutput:
    """The sockets of this process; packets are sent with ``mark``.

    Raises ``PlatformError`` when the kernel refuses a socket; a family that it does not have is
    left out.
    """

    def __init__(self, mark: int) -> None:
        self._senders: dict[int, socket.socket] = {}
        self._askers: dict[int, socket.socket] = {}
        self._listeners: list[socket.socket] = []
        for family in _PROTOCOLS:
            try:
                self._open(family, mark)
            except OSError as error:
                if family == socket.AF_INET6 and not _has_ipv6():
                    continue
                self.close()
                raise PlatformError(
                    f"the kernel refuses a raw socket: {error.strerror or error}",
                    "see that this process has CAP_NET_RAW and CAP_NET_ADMIN",
                ) from error

    def send(self, packet: bytes | bytearray, destination: str) -> int:
        """Send ``packet`` to ``destination``; 0, or the error number of the kernel."""
        sender = self._senders.get(_family(destination))
        if sender is None:
            return errno.EAFNOSUPPORT
        try:
            sender.sendto(packet, (destination, 0))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def path(self, destination: str) -> tuple[int, bytes] | None:
        """MTU of the path to ``destination`` at present, and our address on it; None without a
        route.
        """
        family = _family(destination)
        asker = self._askers.get(family)
        if asker is None:
            return None
        try:
            asker.connect((destination, _DISCARD))
            return (
                asker.getsockopt(*_MTU[socket.AddressFamily(family)]),
                socket.inet_pton(family, asker.getsockname()[0]),
            )
        except OSError:
            return None

    def close(self) -> None:
        """Close the sockets."""
        for each in (*self._senders.values(), *self._askers.values(), *self._listeners):
            each.close()

    def _open(self, family: socket.AddressFamily, mark: int) -> None:
        for protocol in _PROTOCOLS[family]:
            listener = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            self._listeners.append(listener)
            _receive_nothing(listener)
            listener.setsockopt(*_ERRORS[family], 1)
        # Headers are the caller's with this protocol.
        sender = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
        self._senders[family] = sender
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        asker = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._askers[family] = asker
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _receive_nothing(made: socket.socket) -> None:
    """Drop all packets for ``made``; its queue of errors is as short as the kernel allows."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    code = ctypes.create_string_buffer(_NOTHING)
    made.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
    )


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
