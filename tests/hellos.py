"""ClientHellos: made by hand (RFC 8446 §4.1.2), and those of OpenSSL."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

Extension = tuple[int, bytes]


def vector(data: bytes, size: int) -> bytes:
    """``data`` behind its length in ``size`` bytes."""
    return len(data).to_bytes(size, "big") + data


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """The extension server_name (RFC 6066 §3)."""
    listed = b"".join(bytes((kind,)) + vector(name, 2) for name in names)
    return 0, vector(listed, 2)


def protocols(*names: bytes) -> Extension:
    """The extension of ALPN (RFC 7301 §3.1)."""
    return 16, vector(b"".join(vector(name, 1) for name in names), 2)


def body(*extensions: Extension) -> bytes:
    """A ClientHello without the header of its message."""
    listed = b"".join(kind.to_bytes(2, "big") + vector(data, 2) for kind, data in extensions)
    ciphers = vector(b"\x13\x01\x13\x02", 2)
    return b"\x03\x03" + bytes(32) + vector(bytes(32), 1) + ciphers + b"\x01\0" + vector(listed, 2)


def message(body: bytes) -> bytes:
    """The handshake message with ``body``."""
    return b"\x01" + vector(body, 3)


def records(message: bytes, size: int = 1 << 14) -> bytes:
    """``message`` in records of ``size`` bytes at most."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(piece, 2) for piece in pieces)


def hello(*extensions: Extension, size: int = 1 << 14) -> bytes:
    """What a client sends that says ``extensions``, in records of ``size`` bytes."""
    return records(message(body(*extensions)), size)


def of_openssl(name: str | None, alpn: Sequence[str] = (), version: str = "TLSv1_3") -> bytes:
    """The first flight of a client of OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion[version]
    if alpn:
        context.set_alpn_protocols(alpn)
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(received, sent, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake without a server")
