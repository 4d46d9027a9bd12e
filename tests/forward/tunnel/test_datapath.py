"""The packet path of tunnels: what is sent on, in which pieces, and what the client is told.

``Air`` takes the place of the kernel's raw sockets.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FAMILIES, MANY, V4, V6, Family, guarded, packed, service
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    defragment6,
)

from paraglider.core import flow
from paraglider.core.balancer import Balancer
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import ServiceMap
from paraglider.core.verdict import DROP, MARK, REASON_NAMES
from paraglider.forward.tunnel.carrier import TunnelCarrier
from paraglider.forward.tunnel.datapath import ANSWERS, TOLD_SECONDS, TunnelDatapath
from paraglider.netfilter.rules.marks import LEASE, TUNNEL_BASE

SOURCE = {4: packed("172.20.0.254"), 6: packed("fd00:20::fe")}
OUTER = {4: 20, 6: 40}
families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
whole = pytest.mark.parametrize("port", [0, 6080], ids=["ipip", "gue"])


class Air:
    """Keeps what is sent; paths have ``mtu``, 0: there is no route. ``errors`` are the kernel's
    answers to the next packets.
    """

    def __init__(self, mtu: int = 1500) -> None:
        self.mtu = mtu
        self.sent: list[tuple[bytes, str]] = []
        self.errors: list[int] = []
        self.asked = 0

    def send(self, packet: bytes, destination: str) -> int:
        """See ``PacketOutput``."""
        number = self.errors.pop(0) if self.errors else 0
        if not number:
            self.sent.append((bytes(packet), destination))
        return number

    def path(self, destination: str) -> tuple[int, bytes] | None:
        """See ``PacketOutput``."""
        self.asked += 1
        return (self.mtu, SOURCE[6 if ":" in destination else 4]) if self.mtu else None


class Bed:
    """A packet path over one service of three backends."""

    def __init__(
        self, family: Family, air: Air | None, port: int = 0, strategy: str = "rr"
    ) -> None:
        self.family, self.air = family, air
        protocols = (flow.TCP, flow.UDP)
        web = service(family, protocols=protocols, routed=True, echo=True, strategy=strategy)
        carrier = TunnelCarrier()
        carrier.set_ports(dict.fromkeys(web.pool.backends, port))
        flows = FlowTable(FlowTimeouts(), 1000)
        self.path = TunnelDatapath(Balancer(ServiceMap([web])), flows, carrier, air)
        self.head = OUTER[family.number] + (12 if port else 0)

    def handle(self, packet: bytes, now: float = 0.0) -> int:
        """The verdict; the packet in the buffer stays as it is."""
        buf = guarded(packet)
        found = self.path.handle(buf, (len(buf) - len(packet)) // 2, len(packet), 0, now)
        assert bytes(buf)[24:-24] == packet
        return found

    def inside(self) -> list[bytes]:
        """The packets that were sent to backends, without their outer headers."""
        assert self.air is not None
        return [p[self.head :] for p, to in self.air.sent if to in self.family.backends]

    def told(self) -> list[IP | IPv6]:
        """What the client was told."""
        assert self.air is not None
        layer = IP if self.family is V4 else IPv6
        return [layer(p) for p, to in self.air.sent if to == self.family.client]

    @property
    def counted(self) -> dict[str, int]:
        """Reasons with their counts."""
        return {n: c for n, c in zip(REASON_NAMES, self.path.counts, strict=True) if c}


def one_hop_on(family: Family, packet: bytes) -> bytes:
    """``packet`` after one router, as scapy computes it."""
    ip = (IP if family is V4 else IPv6)(packet)
    if family is V4:
        ip.ttl -= 1
        del ip.chksum
    else:
        ip.hlim -= 1
    return bytes(ip)


def datagram(family: Family, size: int, **fields: object) -> bytes:
    """A client's datagram with ``size`` bytes of data."""
    data = bytes(i % 251 for i in range(size))
    return bytes(family.ip(family.client, family.vip, **fields) / UDP(sport=40000, dport=53) / data)


@whole
@families
def test_backends_in_turn(family: Family, port: int) -> None:
    """Each new flow goes to the next backend, its packets all to one, whole and one hop on."""
    bed = Bed(family, Air(), port)
    for number in range(3):
        packet = family.syn(client_port=40000 + number)
        assert bed.handle(packet) == MARK | (TUNNEL_BASE | number) << 8
        later = family.segment("A", client_port=40000 + number, seq=1)
        assert bed.handle(later) & 0xFF == MARK
        assert bed.air is not None
        assert [to for _, to in bed.air.sent[-2:]] == [family.backends[number]] * 2
        assert bed.inside()[-2:] == [one_hop_on(family, packet), one_hop_on(family, later)]


@families
def test_a_proven_client_is_said(family: Family) -> None:
    """Its packets have the bit that the limits of new flows learn from."""
    bed = Bed(family, Air())
    first = bed.handle(datagram(family, 10))
    assert bed.handle(datagram(family, 10)) == first | LEASE << 8


@families
def test_what_is_no_services_is_not_sent(family: Family) -> None:
    """The verdict is that of one-sided flows."""
    bed = Bed(family, Air())
    other = bytes(family.ip(family.client, family.other_vip) / TCP(dport=80, flags="S"))
    bed.handle(other)
    assert bed.counted == {"no_service": 1}
    assert bed.air is not None
    assert bed.air.sent == []


def test_a_rehearsal_sends_nothing() -> None:
    """Without an output the verdict is as ever."""
    assert Bed(V4, None).handle(V4.syn()) & 0xFF == MARK


@whole
@families
def test_the_longest_that_fits(family: Family, port: int) -> None:
    """A packet as long as the room inside goes on; one byte more with DF, or IPv6 with TCP, is
    dropped, and the client is told that room.
    """
    bed = Bed(family, Air(1500), port, "maglev")
    room = 1500 - bed.head
    fields = {"flags": "DF"} if family is V4 else {}
    for size in (room, room + 1):
        head = family.ip(family.client, family.vip, **fields) / TCP(sport=9, dport=80, flags="A")
        packet = bytes(head)
        packet = bytes(head / bytes(size - len(packet)))
        verdict = bed.handle(packet)
        if size == room:
            assert bed.inside() == [one_hop_on(family, packet)]
            assert bed.told() == []
    assert verdict == DROP
    assert len(bed.inside()) == 1
    assert bed.counted == {"too_big": 1}
    (error,) = bed.told()
    assert error.src == family.vip
    if family is V4:
        assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, room)
        assert bytes(error)[28:] == packet[: 576 - 28]
    else:
        assert error[ICMPv6PacketTooBig].mtu == room


@whole
@pytest.mark.parametrize("size", [1473, 3000, 60000])
def test_without_df_it_is_fragmented(size: int, port: int) -> None:
    """Each fragment has an outer header of its own and fits; together they are the packet."""
    bed = Bed(V4, Air(1500), port)
    packet = datagram(V4, size, id=7)
    assert bed.handle(packet) & 0xFF == MARK
    assert bed.air is not None
    assert all(len(p) <= 1500 for p, _ in bed.air.sent)
    (again,) = defragment([IP(p) for p in bed.inside()])
    del again.chksum, again.len
    assert bytes(again) == one_hop_on(V4, packet)
    assert bed.told() == []


@pytest.mark.parametrize("size", [1420, 3000])
def test_ipv6_datagrams(size: int) -> None:
    """They arrive in fragments, and the client is told the room once, since it may not have
    known.
    """
    bed = Bed(V6, Air(1500))
    packet = datagram(V6, size)
    bed.handle(packet)
    pieces = [IPv6(p) for p in bed.inside()]
    assert all(IPv6ExtHdrFragment in piece and len(piece) <= 1460 for piece in pieces)
    assert bytes(defragment6(pieces)) == one_hop_on(V6, packet)
    assert [error[ICMPv6PacketTooBig].mtu for error in bed.told()] == [1460]
    bed.handle(packet, now=TOLD_SECONDS - 1)
    assert len(bed.told()) == 1
    bed.handle(packet, now=TOLD_SECONDS + 1)
    assert len(bed.told()) == 2
    second = IPv6(bed.inside()[-1])[IPv6ExtHdrFragment].id
    assert second != pieces[0][IPv6ExtHdrFragment].id


def test_ipv6_over_the_narrowest_link() -> None:
    """A client need not send less than 1,280 bytes: up to that its segments are fragmented, above
    it is told 1,280.
    """
    bed = Bed(V6, Air(1280), strategy="maglev")
    for size, pieces, told in ((1280, 2, 0), (1281, 2, 1)):
        head = V6.ip(V6.client, V6.vip) / TCP(sport=9, dport=80, flags="A")
        bed.handle(bytes(head / bytes(size - len(bytes(head)))))
        assert len(bed.inside()) == pieces
        assert [error[ICMPv6PacketTooBig].mtu for error in bed.told()] == [1280] * told


@families
def test_the_last_hop(family: Family) -> None:
    """A packet that may go no further is answered by Time Exceeded from the VIP."""
    bed = Bed(family, Air())
    name = "ttl" if family is V4 else "hlim"
    packet = datagram(family, 10, **{name: 1})
    assert bed.handle(packet) == DROP
    assert bed.counted == {"hop_limit": 1}
    assert bed.inside() == []
    (error,) = bed.told()
    assert error[ICMP].type == 11 if family is V4 else ICMPv6TimeExceeded in error


@families
def test_without_a_route(family: Family) -> None:
    """Nothing is sent, and it is counted; the kernel is asked again after a second."""
    bed = Bed(family, Air(0))
    assert bed.handle(family.syn()) == DROP
    assert bed.air is not None
    bed.air.mtu = 1500
    assert bed.handle(family.syn(), now=0.5) == DROP
    assert bed.handle(family.syn(), now=1.5) & 0xFF == MARK
    assert bed.counted == {"unsent": 2}
    assert bed.air.asked == 2


@families
def test_the_kernel_does_not_send(family: Family) -> None:
    """No room in a queue, or a rule of the host's: counted, and not tried again."""
    bed = Bed(family, Air())
    assert bed.air is not None
    bed.air.errors = [errno.EAGAIN]
    assert bed.handle(family.syn()) == DROP
    assert bed.counted == {"unsent": 1}


def test_a_path_that_became_narrower() -> None:
    """The kernel refuses a packet as too long: the path is asked for again, and the client told."""
    bed = Bed(V4, Air(1500))
    packet = datagram(V4, 1400, flags="DF")
    bed.handle(packet)
    assert bed.air is not None
    bed.air.errors, bed.air.mtu = [errno.EMSGSIZE], 1400
    assert bed.handle(packet, now=0.1) == DROP
    assert [error[ICMP].nexthopmtu for error in bed.told()] == [1380]
    bed.air.errors, bed.air.mtu = [errno.EMSGSIZE, errno.EMSGSIZE], 1500
    assert bed.handle(packet, now=2.0) == DROP
    assert bed.counted == {"too_big": 1, "unsent": 1}


def test_answers_are_limited() -> None:
    """A second's worth at once, and as many each second after that."""
    bed = Bed(V4, Air(1500))
    packet = datagram(V4, 1472, flags="DF")
    for _ in range(ANSWERS + 100):
        bed.handle(packet, now=10.0)
    assert len(bed.told()) == ANSWERS
    for _ in range(ANSWERS):
        bed.handle(packet, now=10.5)
    assert len(bed.told()) == ANSWERS * 3 // 2


@families
def test_what_is_behind_the_packet_is_not_sent(family: Family) -> None:
    """The length of the IP header counts; a packet that is cut is dropped."""
    bed = Bed(family, Air())
    packet = family.syn()
    bed.handle(packet + b"padding")
    assert bed.inside() == [one_hop_on(family, packet)]
    assert bed.handle(datagram(family, 100)[:-1]) == DROP
    assert bed.counted == {"truncated": 1}


@families
@pytest.mark.parametrize("size", [0, 19, 20])
def test_a_length_that_is_less_than_the_header(family: Family, size: int) -> None:
    """Such a packet is of no length; it is dropped."""
    bed = Bed(family, Air())
    packet = bytearray(datagram(family, 100))
    at = 2 if family is V4 else 4
    packet[at : at + 2] = (size if family is V4 else 0).to_bytes(2, "big")
    assert bed.handle(bytes(packet)) == DROP
    assert bed.counted == {"truncated": 1}
    assert bed.inside() == []


@families
def test_an_error_about_an_answer(family: Family) -> None:
    """It reaches the backend of its flow; an error about it is not sent."""
    bed = Bed(family, Air(1500))
    bed.handle(datagram(family, 10))
    inner = bytes(family.ip(family.vip, family.client) / UDP(sport=53, dport=40000) / bytes(1200))
    if family is V4:
        error = bytes(IP(src=V4.router, dst=V4.vip) / ICMP(type=3, code=4, nexthopmtu=1400) / inner)
    else:
        error = bytes(IPv6(src=V6.router, dst=V6.vip) / ICMPv6PacketTooBig(mtu=1400) / inner)
    bed.handle(error)
    assert bed.inside()[-1] == one_hop_on(family, error)
    assert bed.air is not None
    bed.air.mtu = 600 if family is V4 else 1280
    bed.handle(error, now=5.0)
    assert bed.told() == []


@given(packet=st.binary(max_size=120), start=st.sampled_from([b"\x45", b"\x60", b"\x46"]))
@MANY
def test_no_bytes_raise(packet: bytes, start: bytes) -> None:
    """Whatever arrives."""
    bed = Bed(V4, Air())
    bed.handle(start + packet)


@families
@given(data=st.data())
@MANY
def test_no_damage_raises(family: Family, data: st.DataObject) -> None:
    """Damaged packets of a flow are sent on or refused; a sent one fits the path."""
    bed = Bed(family, Air(600 if family is V4 else 1280))
    packet = bytearray(datagram(family, 1500))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    bed.handle(bytes(packet))
    assert bed.air is not None
    limit = 1280 if family is V6 else 600
    assert all(len(p) <= max(limit, 600) for p, _ in bed.air.sent)
