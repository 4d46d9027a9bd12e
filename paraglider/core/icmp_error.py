"""ICMP and ICMPv6 errors: finds the flow of the packet inside, and rewrites both packets.

An error contains the head of a packet that could not be delivered, with at least 8 bytes of the
transport header. An error to the backend contains a reply, sent from here with the VIP as source;
an error to the client contains a packet sent from here with the backend as destination. The outer
addresses, the inner addresses and port, the inner header and transport checksums, and the ICMP
checksum are rewritten (RFC 5508 §4.2, RFC 7690). An error neither refreshes nor ends a flow. An
error with a wrong ICMP checksum is not translated (RFC 5508 REQ-3).
An error about a flow that is not known here goes where the flow does, of a service that adopts
flows (``adoption``); it makes no flow.
Rules: nothing raises; a wrong checksum of the inner packet stays wrong.
"""

from __future__ import annotations

from typing import Final

from paraglider.core import verdict
from paraglider.core.balancer import Balancer
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
from paraglider.core.strategies.base import NewFlow

#: offset of the checksum in the transport header
CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
#: reasons of the inner packet that mean that it is not one of our flows
_FOREIGN: Final = frozenset(
    (verdict.OTHER_PROTOCOL, verdict.OTHER_ICMP, verdict.SOURCE_ROUTED, verdict.FRAGMENT)
)


def packet_inside(buf: bytearray, offset: int, error: Parsed, limit: int) -> Parsed:
    """The packet inside the error at ``offset``; ``buf`` is read up to ``limit``.

    Its ``reason`` is -1, or why it cannot be one of our flows.
    """
    inner_at = error.transport + 8
    inner = parse(buf, inner_at, min(error.end, limit) - inner_at, whole=False)
    if inner.reason >= 0:
        inner.reason = verdict.NO_FLOW if inner.reason in _FOREIGN else verdict.SHORT_ERROR
    elif inner.kind == ICMP_ERROR or (buf[inner_at] ^ buf[offset]) >> 4:
        inner.reason = verdict.NO_FLOW  # errors about errors and mixed families do not exist
    return inner


def translate(
    buf: bytearray, offset: int, error: Parsed, flows: FlowTable, now: float, balancer: Balancer
) -> int:
    """Translate the ICMP error in ``buf`` (``error`` is its parsed outer header) in place.

    ``balancer`` finds the backends of flows that ``flows`` does not have. Returns -1 when done,
    else the reason code by which it is accepted unchanged or dropped.
    """
    inner = packet_inside(buf, offset, error, error.end)
    if inner.reason >= 0:
        return inner.reason
    inner_at = error.transport + 8
    key = reverse(inner.key)
    size = (len(key) - 4) // 2
    # Replies are sent to the client, requests to the backend. The kind of an echo distinguishes
    # them, so an error about the host's own ping does not match a client's flow.
    flow = flows.forward[inner.protocol].get(key) if inner.kind != ECHO_REQUEST else None
    if flow is not None and not _intact(buf, offset, error):
        return verdict.BAD_CHECKSUM
    if flow is not None:  # to the backend: the backend replaces the VIP
        before, after, port = key[size:-4], flow.reverse_key[:size], flow.reverse_key[-4:-2]
        _rewrite(buf, offset, error, inner, inner_at, True, (before, after, port))
        return -1
    flow = flows.reverse[inner.protocol].get(key) if inner.kind != ECHO_REPLY else None
    if flow is None:
        if inner.protocol in CHECKSUM_AT and flows.fetch(inner.protocol, key, now):
            return translate(buf, offset, error, flows, now, balancer)
        return _translate_unknown(buf, offset, error, inner, now, balancer)
    if not _intact(buf, offset, error):
        return verdict.BAD_CHECKSUM
    # to the client: the VIP replaces the backend
    before, after, port = key[:size], flow.forward_key[size:-4], flow.forward_key[-2:]
    _rewrite(buf, offset, error, inner, inner_at, False, (before, after, port))
    return -1


def _translate_unknown(
    buf: bytearray, offset: int, error: Parsed, inner: Parsed, now: float, balancer: Balancer
) -> int:
    """As ``translate``, for an error about a flow that is not known here (RFC 7690)."""
    key = reverse(inner.key)
    size = (len(key) - 4) // 2
    to_backend = True
    found = None
    if inner.kind != ECHO_REQUEST:
        found = balancer.owner(NewFlow(inner.protocol, key, now))
    if found is not None:
        back = found.reverse_key(key)
        end = key[size:-4], back[:size], back[-4:-2]
    else:
        to_backend = False
        found = balancer.answering(inner.protocol, key) if inner.kind != ECHO_REPLY else None
        if found is None:
            return verdict.NO_FLOW
        forward = found.forward_key(key)
        end = key[:size], forward[size:-4], forward[-2:]
    if not _intact(buf, offset, error):
        return verdict.BAD_CHECKSUM
    _rewrite(buf, offset, error, inner, error.transport + 8, to_backend, end)
    return -1


def _intact(buf: bytearray, offset: int, error: Parsed) -> bool:
    """Whether the ICMP checksum of ``error`` is correct (RFC 792; RFC 4443 section 2.3)."""
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
    """Replace the balancer's end of the flow in both packets. ``end`` is the address before, the
    address after and the port after.

    It is the destination of an error to the backend, which sent the inner packet, and the source of
    an error to the client, whichever router sent it (RFC 5508 REQ-5c): the address of a router
    behind the balancer means nothing to a client.
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
    # The ICMPv6 checksum covers the outer addresses (RFC 4443 §2.3), that of ICMP does not.
    _adjust(buf, error.transport + 2, covered + (change if size == 16 else 0))


def _rewrite_inner(
    buf: bytearray,
    at: int,
    limit: int,
    inner: Parsed,
    is_source: bool,
    end: tuple[bytes, bytes, bytes],
) -> None:
    """Replace the balancer's end of the flow, source or destination, in the packet that begins at
    ``at`` and is truncated at ``limit``.
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
    elif any(buf[checksum_at : checksum_at + 2]):  # 0 means no checksum (RFC 768)
        _adjust(buf, checksum_at, change)
        if not any(buf[checksum_at : checksum_at + 2]):
            buf[checksum_at] = buf[checksum_at + 1] = 0xFF


def _adjust(buf: bytearray, at: int, change: int) -> None:
    checksum = ((buf[at] << 8 | buf[at + 1]) - change) % 65535
    buf[at], buf[at + 1] = checksum >> 8, checksum & 255
