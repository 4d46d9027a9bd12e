"""The PROXY protocol, versions 1 and 2: the client's address, sent to a backend before its bytes.

Source: haproxy.org, doc/proxy-protocol.txt, §2.1 (version 1, text) and §2.2 (version 2, binary).
Rules: pure. The flow key, source first, is byte for byte the address block of version 2.
"""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

Version = Literal["v1", "v2"]

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_PROXIED: Final = 0x21  # version 2, command PROXY
_STREAM: Final = {4: 0x11, 16: 0x21}  # TCP over IPv4, TCP over IPv6, by the length of an address


def header(version: Version, key: bytes) -> bytes:
    """The header for the connection with flow key ``key``: client, VIP, the ports of both."""
    size = (len(key) - 4) // 2
    if version == "v2":
        head = bytes((_PROXIED, _STREAM[size])) + len(key).to_bytes(2, "big")
        return _SIGNATURE + head + key
    client, vip = ipaddress.ip_address(key[:size]), ipaddress.ip_address(key[size:-4])
    ports = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
    return f"PROXY TCP{client.version} {client} {vip} {ports[0]} {ports[1]}\r\n".encode("ascii")
