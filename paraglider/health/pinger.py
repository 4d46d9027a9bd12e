"""Sends ICMP echo requests to one host or a network, and collects the replies.

One raw socket per family sends all pings of the process. Each request has a unique number (RFC 792:
identifier and sequence number) and a random token, so that replies cannot be forged. Opening the
sockets needs CAP_NET_RAW (raw(7)), using them does not.

Lives here: ``Pinger``, ``EchoRequest``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from paraglider.config.types import IPAddress
from paraglider.core.checksum import internet_checksum
from paraglider.errors import PlatformError

_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}
_HEAD: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_TOKEN: Final = 16
#: linux/icmp.h and linux/icmpv6.h: the raw socket option with a bit mask of types to drop
_FILTER: Final = 1
#: linux/socket.h
_SOL_RAW: Final = 255
#: most replies read at once, so that a flood does not block the loop
_AT_ONCE: Final = 256
#: errors of a full send buffer: the packet counts as lost
_LOST: Final = (errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM)


class EchoRequest:
    """One ping in progress: ``answers`` are the addresses that have replied, in order.

    ``replied`` is set by every reply.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.token = secrets.token_bytes(_TOKEN)
        self.answers: dict[IPAddress, None] = {}
        self.replied = asyncio.Event()


class Pinger:
    """The sockets of both families, or of the one that the host has; a context manager.

    The constructor needs CAP_NET_RAW; ``start`` adds the sockets to the running loop. Raises
    ``PlatformError`` when the kernel refuses the sockets.
    """

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._open: dict[int, EchoRequest] = {}
        self._next = secrets.randbelow(1 << 32)
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            for family in (4, 6):
                self._add(family)
        except OSError as error:
            self.close()
            raise PlatformError(
                f"no raw socket for ICMP echo: {error.strerror}", "it takes CAP_NET_RAW"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Read replies on the running loop."""
        self._loop = asyncio.get_running_loop()
        for family, sock in self._sockets.items():
            self._loop.add_reader(sock, self._read, family, sock)

    def close(self) -> None:
        """Close the sockets; may be called again."""
        for sock in self._sockets.values():
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    @contextlib.contextmanager
    def echo_request(self) -> Iterator[EchoRequest]:
        """A request, whose replies are collected until the context ends."""
        number = self._next = (self._next + 1) & 0xFFFFFFFF
        request = self._open[number] = EchoRequest(number)
        try:
            yield request
        finally:
            del self._open[number]

    def send(
        self,
        request: EchoRequest,
        to: IPAddress,
        *,
        source: IPAddress | None = None,
        interface: str = "",
    ) -> None:
        """Ping the host or the group ``to``.

        ``source`` (an address of this host) and ``interface`` are for IPv6 groups: hosts reply from
        an address of the same scope as ``source`` (RFC 4443, section 4.2; RFC 6724, rule 2). Raises
        OSError when the kernel refuses to send.
        """
        sock = self._sockets.get(to.version)
        if sock is None:
            raise OSError(errno.EAFNOSUPPORT, f"this host has no IPv{to.version}")
        index = socket.if_nametoindex(interface) if interface else 0
        try:
            sock.sendmsg(
                [_request(request, to.version)],
                _ancillary(source, index),
                0,
                (str(to), 0) if to.version == 4 else (str(to), 0, 0, index),
            )
        except OSError as error:
            if error.errno not in _LOST:
                raise

    def _add(self, family: int) -> None:
        number = socket.AF_INET if family == 4 else socket.AF_INET6
        protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            sock = self._sockets[family] = socket.socket(number, flags, protocol)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                return
            raise
        if family == 4:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            wanted = ~(1 << _REPLY[4]) & 0xFFFFFFFF
            sock.setsockopt(_SOL_RAW, _FILTER, wanted.to_bytes(4, "little"))
        else:
            kept_away = bytearray(b"\xff" * 32)
            kept_away[_REPLY[6] // 8] &= ~(1 << _REPLY[6] % 8)
            sock.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, bytes(kept_away))

    def _read(self, family: int, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, sender = sock.recvfrom(256)
            except OSError:  # nothing to read, or an error of no particular request
                return
            message = data[(data[0] & 15) * 4 :] if family == 4 and data else data
            if len(message) < _HEAD.size + _TOKEN or message[0] != _REPLY[family]:
                continue
            identifier, sequence = _HEAD.unpack_from(message)[3:]
            request = self._open.get(identifier << 16 | sequence)
            token = message[_HEAD.size : _HEAD.size + _TOKEN]
            if request is not None and secrets.compare_digest(token, request.token):
                request.answers[ipaddress.ip_address(sender[0])] = None
                request.replied.set()


def _request(request: EchoRequest, family: int) -> bytes:
    number = (request.number >> 16, request.number & 0xFFFF)
    packet = _HEAD.pack(_REQUEST[family], 0, 0, *number) + request.token
    if family == 6:
        return packet  # the kernel fills the checksum of ICMPv6 in (RFC 3542, section 3.1)
    return _HEAD.pack(_REQUEST[4], 0, internet_checksum(packet), *number) + request.token


def _ancillary(source: IPAddress | None, index: int) -> list[tuple[int, int, bytes]]:
    """The source address and the interface of an IPv6 packet as sendmsg takes them (ipv6(7))."""
    if source is None and not index:
        return []
    address = source.packed if source is not None else bytes(16)
    value = struct.pack("=16sI", address, index)
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, value)]
