"""Packets of which only the head comes: flows move as ever, and the kernel translates them."""

from __future__ import annotations

import pytest
from packets import FAMILIES, Family, backend, nat, service
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6ExtHdrHopByHop, Jumbo
from scapy.packet import Raw

from paraglider.core import flow
from paraglider.core.checksum import COMPLETE
from paraglider.core.packet import COPY, LONGEST
from paraglider.core.verdict import DROP, MARK, REASON_NAMES, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

CARRIED = 0x53123456 << 8 | MARK


#: how many bytes of a long packet come
copied = pytest.mark.parametrize("copy", [COPY, LONGEST])


def head(packet: bytes, copy: int = LONGEST) -> bytearray:
    """The ``copy`` bytes that come of ``packet``, as if it were longer than it is."""
    return bytearray(packet + bytes(copy - len(packet)))


def carrying(family: Family, protocol: int) -> NatDatapath:
    """A path with one service of ``protocol``, whose long packets the kernel carries."""
    web = service(family, protocols=(protocol,), backends=[backend(family.backends[0])])
    for translation in web.translations.values():
        translation.long_verdict = CARRIED
    return nat(web)


def datagram(
    family: Family, source: str, destination: str, sport: int, dport: int, copy: int = LONGEST
) -> bytearray:
    """The head of the longest datagram."""
    packet = family.ip(source, destination) / UDP(sport=sport, dport=dport, len=65515)
    if family.number == 4:
        packet.len = 65535
    else:
        packet.plen = 65515
    return head(bytes(packet / Raw(bytes(1000))), copy)


@copied
@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_datagrams(family: Family, copy: int) -> None:
    """They open a flow and are answered by it; bytes are counted by the packet's length."""
    path = carrying(family, flow.UDP)
    there = datagram(family, family.client, family.vip, 40000, 80, copy)
    back = datagram(family, family.backends[0], family.client, 80, 40000, copy)
    assert path.handle(there, 0, len(there), COMPLETE, 0.0) == CARRIED
    assert len(path.flows) == 1
    assert path.handle(back, 0, len(back), COMPLETE, 1.0) == CARRIED
    (found,) = path.flows.forward[flow.UDP].values()
    length = 65535 if family.number == 4 else 65555
    assert (found.translation.packets_out, found.translation.bytes_out) == (1, length)
    assert (found.translation.packets_back, found.translation.bytes_back) == (1, length)


@copied
@pytest.mark.parametrize("family", FAMILIES)
def test_segments_of_big_tcp(family: Family, copy: int) -> None:
    """Their length is in no field, or in an option of IPv6; the segment is its flow's."""
    path = carrying(family, flow.TCP)
    syn = bytearray(family.syn())
    assert path.handle(syn, 0, len(syn), COMPLETE, 0.0) == REWRITTEN
    segment = TCP(sport=40000, dport=80, flags="A") / Raw(bytes(1000))
    plain = family.ip(family.client, family.vip)
    if family.number == 4:
        plain.len = 0
        long = [plain / segment]
    else:
        plain.plen = 0
        jumbo = IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=150_000)])
        long = [plain / jumbo / segment, plain / segment]
    for packet in long:
        buf = head(bytes(packet), copy)
        assert path.handle(buf, 0, len(buf), COMPLETE, 1.0) == CARRIED
    (found,) = path.flows.forward[flow.TCP].values()
    assert found.translation.packets_out == 1 + len(long)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_kernel_they_are_dropped(family: Family) -> None:
    """If the kernel has no mark for the backend, the packet is dropped and counted."""
    path = carrying(family, flow.UDP)
    for translation in path.balancer.services.services[0].translations.values():
        translation.long_verdict = 0
    there = datagram(family, family.client, family.vip, 40000, 80)
    assert path.handle(there, 0, len(there), COMPLETE, 0.0) == DROP
    assert path.counts[REASON_NAMES.index("truncated")] == 1


@pytest.mark.parametrize("more", [0, 1, 39, 40, 41, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_segments_around_the_copied_length(family: Family, more: int) -> None:
    """A segment of exactly that length is rewritten, the kernel gets every longer one; the length
    that counts is the packet's.
    """
    path = carrying(family, flow.TCP)
    syn = bytearray(family.syn())
    assert path.handle(syn, 0, len(syn), COMPLETE, 0.0) == REWRITTEN
    headers = (20 if family.number == 4 else 40) + 20
    segment = TCP(sport=40000, dport=80, flags="A") / Raw(bytes(COPY + more - headers))
    whole = bytes(family.ip(family.client, family.vip) / segment)
    assert len(whole) == COPY + more
    buf = bytearray(whole[:COPY])
    wanted = CARRIED if more else REWRITTEN
    assert path.handle(buf, 0, len(buf), COMPLETE, 1.0) == wanted
    (found,) = path.flows.forward[flow.TCP].values()
    assert found.translation.bytes_out == len(syn) + COPY + more


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_another_length_is_no_packet(family: Family) -> None:
    """Only the lengths that queues copy are heads; any other packet that is cut is dropped."""
    path = carrying(family, flow.UDP)
    there = datagram(family, family.client, family.vip, 40000, 80, COPY - 1)
    assert path.handle(there, 0, len(there), COMPLETE, 0.0) == DROP
    assert path.counts[REASON_NAMES.index("truncated")] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_icmp_error_is_dropped(family: Family) -> None:
    """The kernel cannot rewrite the packet inside, and half an error is none."""
    path = carrying(family, flow.TCP)
    syn = family.syn()
    opening = bytearray(syn)
    assert path.handle(opening, 0, len(opening), COMPLETE, 0.0) == REWRITTEN
    kind = ICMP(type=3, code=1) if family.number == 4 else ICMPv6DestUnreach()
    inside = Raw(bytes(opening) + bytes(2 * COPY))
    error = bytes(family.ip(family.backends[0], family.vip) / kind / inside)
    assert len(error) > COPY
    buf = bytearray(error[:COPY])
    assert path.handle(buf, 0, len(buf), COMPLETE, 1.0) == DROP
    assert path.counts[REASON_NAMES.index("truncated")] == 1
