"""The ClientHello of TLS: the server's name and the protocols that a client asks for.

Lives here: ``Hello`` (these two), ``HelloReader`` (takes the bytes of a connection as they come),
``parse`` (a whole ClientHello), ``plain_name`` (how names are compared).
Sources: RFC 8446 §5.1 (records), §4 and §4.1.2 (handshake, ClientHello), §4.2 (extensions); RFC
6066 §3 (server_name); RFC 7301 §3.1 (ALPN). TLS 1.0 to 1.3 have the same form.
Rules: pure. Takes any bytes from anyone: at most ``MOST`` of a connection are looked at, each once,
and nothing is raised. Nothing is decrypted: of Encrypted Client Hello this is the outer name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: most bytes of a connection that are looked at, with the headers of records
MOST: Final = 16 * 1024
#: most bytes of a name (RFC 1035 §2.3.4)
LONGEST_NAME: Final = 255

_HANDSHAKE, _CLIENT_HELLO = 22, 1  # of a record, of a handshake message
_MAJOR: Final = 3  # of every version from SSL 3.0 on; the rest of the field is to be ignored
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_LONGEST_RECORD: Final = 1 << 14
_SERVER_NAME, _ALPN = 0, 16  # types of extensions
_HOST_NAME: Final = 0  # the one type of a server's name


class Hello(NamedTuple):
    """What a client asks for: ``sni``, the name of the server as ``plain_name`` has it, empty if
    there is none; ``alpn``, the protocols that it offers, its favourite first.
    """

    sni: str = ""
    alpn: tuple[str, ...] = ()


class HelloReader:
    """Finds the ClientHello at the beginning of a connection, in pieces of any size.

    ``done`` is true as soon as no further byte matters; then ``hello`` is the ClientHello, or None
    if the connection begins with something else, or with one that is malformed or too long.
    """

    __slots__ = ("_header", "_left", "_message", "_room", "done", "hello")

    def __init__(self) -> None:
        self.done = False
        self.hello: Hello | None = None
        self._header = bytearray()  # of the record that begins
        self._left = 0  # bytes of the present record that have not come yet
        self._message = bytearray()  # the handshake message, over all records
        self._room = MOST

    def feed(self, data: bytes | memoryview) -> bool:
        """Take the next bytes of the connection; returns ``done``."""
        at, end = 0, min(len(data), self._room)
        self._room -= end
        while at < end and not self.done:
            if self._left:
                size = min(self._left, end - at)
                self._message += data[at : at + size]
                self._left -= size
                self._check_message()
            else:
                size = min(_RECORD_HEADER - len(self._header), end - at)
                self._header += data[at : at + size]
                self._check_header()
            at += size
        if not self._room:
            self.done = True
        return self.done

    def _check_header(self) -> None:
        header = self._header
        if header[0] != _HANDSHAKE or (len(header) > 1 and header[1] != _MAJOR):
            self.done = True
        elif len(header) == _RECORD_HEADER:
            self._left = int.from_bytes(header[3:], "big")
            header.clear()
            # A handshake record has at least one byte (RFC 8446 §5.1).
            self.done = not 0 < self._left <= _LONGEST_RECORD

    def _check_message(self) -> None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            self.done = True
        elif len(message) >= _MESSAGE_HEADER:
            size = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
            if len(message) >= size:
                self.hello = parse(bytes(message[_MESSAGE_HEADER:size]))
                self.done = True
            elif size > MOST:
                self.done = True


def parse(body: bytes) -> Hello | None:
    """The ClientHello with ``body``, the message without its header; None if it is malformed."""
    try:
        return _parsed(body)
    except _MalformedError:
        return None


def plain_name(name: str) -> str:
    """``name`` in lower case and without the dot at its end: names that are the same are equal."""
    return name.lower().removesuffix(".")


class _MalformedError(Exception):
    """A length leads beyond its vector, or something stands twice that may stand once."""


class _Vector:
    """Bytes that are taken from the front."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise _MalformedError
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        """The next number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """The next bytes, behind their own number, which has ``size`` bytes."""
        return self.take(self.number(size))


def _parsed(body: bytes) -> Hello:
    rest = _Vector(body)
    rest.take(2 + 32)  # legacy_version, random
    rest.vector(1)  # legacy_session_id
    rest.vector(2)  # cipher_suites
    rest.vector(1)  # legacy_compression_methods
    if not rest:
        return Hello()  # before TLS 1.3, extensions may be missing
    extensions = _Vector(rest.vector(2))
    if rest:
        raise _MalformedError
    found: dict[int, bytes] = {}
    while extensions:
        kind = extensions.number(2)
        if kind in found:
            raise _MalformedError  # RFC 8446 §4.2
        found[kind] = extensions.vector(2)
    sni = _server_name(found[_SERVER_NAME]) if _SERVER_NAME in found else ""
    return Hello(sni, _protocols(found[_ALPN]) if _ALPN in found else ())


def _list_of(extension: bytes) -> _Vector:
    """The one list that is all of ``extension``, and is not empty."""
    whole = _Vector(extension)
    items = _Vector(whole.vector(2))
    if whole or not items:
        raise _MalformedError
    return items


def _server_name(extension: bytes) -> str:
    names = _list_of(extension)
    found: dict[int, bytes] = {}
    while names:
        kind = names.number(1)
        if kind in found:
            raise _MalformedError  # RFC 6066 §3
        found[kind] = names.vector(2)
    name = found.get(_HOST_NAME, b"")
    if len(name) > LONGEST_NAME or not name.isascii():
        return ""  # no name in the DNS
    return plain_name(name.decode("ascii"))


def _protocols(extension: bytes) -> tuple[str, ...]:
    protocols = _list_of(extension)
    found: list[str] = []
    while protocols:
        name = protocols.vector(1)
        if not name:
            raise _MalformedError
        found.append(name.decode("latin-1"))
    return tuple(found)
