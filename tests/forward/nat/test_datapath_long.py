"""Packets of which only the head comes: flows move as ever, and the kernel translates them."""

from __future__ import annotations

import pytest
from packets import FAMILIES, Family, backend, nat, service
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrHopByHop, Jumbo
from scapy.packet import Raw

from paraglider.core import flow
from paraglider.core.checksum import COMPLETE
from paraglider.core.packet import LONGEST
from paraglider.core.verdict import DROP, MARK, REASON_NAMES, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

CARRIED = 0x53123456 << 8 | MARK


def head(packet: bytes) -> bytearray:
    """What comes of ``packet``, were it longer than it is."""
    return bytearray(packet + bytes(LONGEST - len(packet)))


def carrying(family: Family, protocol: int) -> NatDatapath:
    """A path with one service of ``protocol``, whose long packets the kernel carries."""
    web = service(family, protocols=(protocol,), backends=[backend(family.backends[0])])
    for translation in web.translations.values():
        translation.long_verdict = CARRIED
    return nat(web)


def datagram(family: Family, source: str, destination: str, sport: int, dport: int) -> bytearray:
    """The head of the longest datagram."""
    packet = family.ip(source, destination) / UDP(sport=sport, dport=dport, len=65515)
    if family.number == 4:
        packet.len = 65535
    else:
        packet.plen = 65515
    return head(bytes(packet / Raw(bytes(1000))))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_datagrams(family: Family) -> None:
    """They open a flow and are answered by it; the bytes are the packet's, not the copy's."""
    path = carrying(family, flow.UDP)
    there = datagram(family, family.client, family.vip, 40000, 80)
    back = datagram(family, family.backends[0], family.client, 80, 40000)
    assert path.handle(there, 0, len(there), COMPLETE, 0.0) == CARRIED
    assert len(path.flows) == 1
    assert path.handle(back, 0, len(back), COMPLETE, 1.0) == CARRIED
    (found,) = path.flows.forward[flow.UDP].values()
    length = 65535 if family.number == 4 else 65555
    assert (found.translation.packets_out, found.translation.bytes_out) == (1, length)
    assert (found.translation.packets_back, found.translation.bytes_back) == (1, length)


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_of_big_tcp(family: Family) -> None:
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
        buf = head(bytes(packet))
        assert path.handle(buf, 0, len(buf), COMPLETE, 1.0) == CARRIED
    (found,) = path.flows.forward[flow.TCP].values()
    assert found.translation.packets_out == 1 + len(long)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_kernel_they_are_dropped(family: Family) -> None:
    """Where no mark means the backend to the kernel the packet is dropped, and counted."""
    path = carrying(family, flow.UDP)
    for translation in path.balancer.services.services[0].translations.values():
        translation.long_verdict = 0
    there = datagram(family, family.client, family.vip, 40000, 80)
    assert path.handle(there, 0, len(there), COMPLETE, 0.0) == DROP
    assert path.counts[REASON_NAMES.index("truncated")] == 1
