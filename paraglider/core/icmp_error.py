"""ICMP and ICMPv6 errors: the packet inside names the flow, reversed; both packets are rewritten.

An error speaks of a packet that some host could not deliver, and carries its head: at least 8
bytes of the transport header. Towards the backend it speaks of a reply that left here with the
VIP as source; towards the client, of a packet that left here with the backend as destination.
Outer addresses, inner addresses and port, the inner header and transport checksums, and the
ICMP checksum change (RFC 5508 §4.2, RFC 7690). An error neither refreshes nor ends a flow.
An error about a flow of ours whose ICMP checksum is wrong is not translated (RFC 5508 REQ-3).
Rules: as everywhere in the core, nothing raises; a wrong checksum of the inner packet stays wrong.
"""

from __future__ import annotations

from typing import Final

from paraglider.core import verdict
from paraglider.core.checksum import ones_sum
from paraglider.core.flow import ICMP6, TCP, UDP
from paraglider.core.flow_table import FlowTable
from paraglider.core.packet import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP_ERROR,
    Parsed,
    parse,
    reverse,
)

#: where the checksum stands in the transport header
CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
#: reasons of the inner packet that are no fault of the error's sender: it names no flow of ours
_FOREIGN: Final = frozenset(
    (verdict.OTHER_PROTOCOL, verdict.OTHER_ICMP, verdict.SOURCE_ROUTED, verdict.FRAGMENT)
)


def packet_inside(buf: bytearray, offset: int, error: Parsed, limit: int) -> Parsed:
    """The packet that the error at ``offset`` speaks of; ``buf`` is read up to ``limit``.

    Its ``reason`` is -1, or why the error is about no flow of ours.
    """
    inner_at = error.transport + 8
    inner = parse(buf, inner_at, min(error.end, limit) - inner_at, whole=False)
    if inner.reason >= 0:
        inner.reason = verdict.NO_FLOW if inner.reason in _FOREIGN else verdict.SHORT_ERROR
    elif inner.kind == ICMP_ERROR or (buf[inner_at] ^ buf[offset]) >> 4:
        inner.reason = verdict.NO_FLOW  # no error is sent about an error; families do not mix
    return inner


def translate(buf: bytearray, offset: int, error: Parsed, flows: FlowTable) -> int:
    """Translate the ICMP error in ``buf`` (``error`` is its parsed outer header) in place.

    Returns -1 when done, else the reason why it goes on untouched or is dropped.
    """
    inner = packet_inside(buf, offset, error, error.end)
    if inner.reason >= 0:
        return inner.reason
    inner_at = error.transport + 8
    key = reverse(inner.key)
    size = (len(key) - 4) // 2
    # Replies leave here for the client, requests for the backend: an echo tells which it is, so
    # that an error about the host's own ping is not taken for one about a client's.
    flow = flows.forward[inner.protocol].get(key) if inner.kind != ECHO_REQUEST else None
    if flow is not None and not _intact(buf, offset, error):
        return verdict.BAD_CHECKSUM
    if flow is not None:  # towards the backend: where the VIP stands, the backend belongs
        before, after, port = key[size:-4], flow.reverse_key[:size], flow.reverse_key[-4:-2]
        _rewrite(buf, offset, error, inner, inner_at, True, (before, after, port))
        return -1
    flow = flows.reverse[inner.protocol].get(key) if inner.kind != ECHO_REPLY else None
    if flow is None:
        return verdict.NO_FLOW
    if not _intact(buf, offset, error):
        return verdict.BAD_CHECKSUM
    # towards the client: where the backend stands, the VIP belongs
    before, after, port = key[:size], flow.forward_key[size:-4], flow.forward_key[-2:]
    _rewrite(buf, offset, error, inner, inner_at, False, (before, after, port))
    return -1


def _intact(buf: bytearray, offset: int, error: Parsed) -> bool:
    """Whether the ICMP checksum of ``error`` is right (RFC 792; RFC 4443 section 2.3)."""
    total = ones_sum(buf[error.transport : error.end])
    if buf[offset] >> 4 == 6:
        total += ones_sum(buf[offset + 8 : offset + 40]) + error.end - error.transport + ICMP6
    return total % 65535 == 0


def _rewrite(
    buf: bytearray,
    offset: int,
    error: Parsed,
    inner: Parsed,
    inner_at: int,
    to_backend: bool,
    end: tuple[bytes, bytes, bytes],
) -> None:
    """Replace our end of the flow in both packets: address before, address after, port after.

    Our end is the destination of the error towards the backend, whose inner packet it sent; and
    the source of the error towards the client, whoever sent it (RFC 5508 REQ-5c): the address of a
    router behind us means nothing to a client.
    """
    before, after, _ = end
    size = len(before)
    icmp = slice(error.transport, error.end)
    at = offset + (12 if size == 4 else 8) + (size if to_backend else 0)
    covered = ones_sum(buf[icmp])
    change = 0
    sender = bytes(buf[at : at + size])
    if sender == before or not to_backend:
        buf[at : at + size] = after
        change = ones_sum(after) - ones_sum(sender)
        if size == 4:
            _adjust(buf, offset + 10, change)
    _rewrite_inner(buf, inner_at, error.end, inner, to_backend, end)
    covered = ones_sum(buf[icmp]) - covered
    # ICMPv6 covers the outer addresses by its pseudo-header (RFC 4443 §2.3), ICMP does not.
    _adjust(buf, error.transport + 2, covered + (change if size == 16 else 0))


def _rewrite_inner(
    buf: bytearray,
    at: int,
    limit: int,
    inner: Parsed,
    is_source: bool,
    end: tuple[bytes, bytes, bytes],
) -> None:
    """Replace our end of the flow, source or destination, in the packet that begins at ``at`` and
    is cut at ``limit``.
    """
    before, after, port = end
    size = len(before)
    ours = at + (12 if size == 4 else 8) + (0 if is_source else size)
    buf[ours : ours + size] = after
    change = ones_sum(after) - ones_sum(before)
    if size == 4:
        _adjust(buf, at + 10, change)
    if inner.protocol not in CHECKSUM_AT:
        # ICMPv6 echo inside: its checksum covers the addresses; the identifier stays.
        if size == 16:
            _adjust(buf, inner.transport + 2, change)
        return
    port_at = inner.transport + (0 if is_source else 2)
    change += ones_sum(port) - ones_sum(buf[port_at : port_at + 2])
    buf[port_at : port_at + 2] = port
    checksum_at = inner.transport + CHECKSUM_AT[inner.protocol]
    if checksum_at + 2 > limit:
        return
    if inner.protocol == TCP:
        _adjust(buf, checksum_at, change)
    elif any(buf[checksum_at : checksum_at + 2]):  # 0 says that there is none (RFC 768)
        _adjust(buf, checksum_at, change)
        if not any(buf[checksum_at : checksum_at + 2]):
            buf[checksum_at] = buf[checksum_at + 1] = 0xFF


def _adjust(buf: bytearray, at: int, change: int) -> None:
    checksum = ((buf[at] << 8 | buf[at + 1]) - change) % 65535
    buf[at], buf[at + 1] = checksum >> 8, checksum & 255
