"""ICMP echo requests, to one host or to all of a network, and who answers them.

One raw socket a family serves all pings of the process, so that hundreds of hosts cost two
descriptors. What is sent carries a number of its own (RFC 792: identifier and sequence number)
and a token that only we know, so that nobody answers for another. Opening the sockets takes
CAP_NET_RAW (raw(7)), using them takes nothing.

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
#: linux/icmp.h and linux/icmpv6.h: the option of a raw socket that keeps types from it, by bits
_FILTER: Final = 1
#: linux/socket.h
_SOL_RAW: Final = 255
#: answers that one wakening reads at most, so that a flood leaves time for the rest
_AT_ONCE: Final = 256
#: the kernel has no room for a packet just now: it is lost, as it might be on the way
_LOST: Final = (errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM)


class EchoRequest:
    """One ping under way: ``answers`` are the addresses that answered so far, in order.

    ``heard`` is set by every answer.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.token = secrets.token_bytes(_TOKEN)
        self.answers: dict[IPAddress, None] = {}
        self.heard = asyncio.Event()


class Pinger:
    """The sockets of both families, or of the one that the host has; a context manager.

    Made where CAP_NET_RAW is; ``start`` puts it onto the running loop. Raises ``PlatformError``
    where the kernel gives no such socket.
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
        """Listen, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for family, sock in self._sockets.items():
            self._loop.add_reader(sock, self._read, family, sock)

    def close(self) -> None:
        """Close the sockets; again does no harm."""
        for sock in self._sockets.values():
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    @contextlib.contextmanager
    def asking(self) -> Iterator[EchoRequest]:
        """A question, whose answers are collected until the context ends."""
        number = self._next = (self._next + 1) & 0xFFFFFFFF
        question = self._open[number] = EchoRequest(number)
        try:
            yield question
        finally:
            del self._open[number]

    def send(
        self,
        question: EchoRequest,
        to: IPAddress,
        *,
        source: IPAddress | None = None,
        interface: str = "",
    ) -> None:
        """Ask the host or the group ``to``.

        ``source`` (one of our addresses) and ``interface`` are for groups of IPv6: whoever answers
        does so from an address of the kind that it is asked from (RFC 4443, section 4.2; RFC 6724,
        rule 2). Raises OSError when the kernel will not send it.
        """
        sock = self._sockets.get(to.version)
        if sock is None:
            raise OSError(errno.EAFNOSUPPORT, f"this host has no IPv{to.version}")
        index = socket.if_nametoindex(interface) if interface else 0
        try:
            sock.sendmsg(
                [_request(question, to.version)],
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
            except OSError:  # nothing is left, or an error that belongs to no question
                return
            message = data[(data[0] & 15) * 4 :] if family == 4 and data else data
            if len(message) < _HEAD.size + _TOKEN or message[0] != _REPLY[family]:
                continue
            identifier, sequence = _HEAD.unpack_from(message)[3:]
            question = self._open.get(identifier << 16 | sequence)
            token = message[_HEAD.size : _HEAD.size + _TOKEN]
            if question is not None and secrets.compare_digest(token, question.token):
                question.answers[ipaddress.ip_address(sender[0])] = None
                question.heard.set()


def _request(question: EchoRequest, family: int) -> bytes:
    number = (question.number >> 16, question.number & 0xFFFF)
    packet = _HEAD.pack(_REQUEST[family], 0, 0, *number) + question.token
    if family == 6:
        return packet  # the kernel fills the checksum of ICMPv6 in (RFC 3542, section 3.1)
    return _HEAD.pack(_REQUEST[4], 0, internet_checksum(packet), *number) + question.token


def _ancillary(source: IPAddress | None, index: int) -> list[tuple[int, int, bytes]]:
    """The source address and the interface of an IPv6 packet as sendmsg takes them (ipv6(7))."""
    if source is None and not index:
        return []
    address = source.packed if source is not None else bytes(16)
    value = struct.pack("=16sI", address, index)
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, value)]
