"""The worker's packet path and the program do the same with a packet: byte for byte, TTL apart.

A router counts the TTL down; a packet that meets the worker loses its hop in the stack, after it.
"""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from paraglider.core.checksum import COMPLETE
from paraglider.core.verdict import REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath
from tests.bpf.carrying import CLIENT_PORT, MAPPED_PORT, NUMBER, VIP_PORT, Bed, ip
from tests.core.packets import FAMILIES, SOME, V4, Family, backend, nat, service

pytestmark = pytest.mark.root

NOW = 1.0
NUMBERS = st.integers(0, 0xFFFFFFFF)
BYTE = st.integers(0, 0xFF)
SHORT = st.integers(0, 0xFFFF)
#: every segment of an established flow has ACK; what may stand beside it opens and ends nothing
FLAGS = st.sets(st.sampled_from("PUEC")).map(lambda others: "A" + "".join(sorted(others)))


@functools.cache
def worker(family: Family, protocol: str, mapped: bool) -> NatDatapath:
    """The worker's packet path, with the client's flow open."""
    port = MAPPED_PORT if mapped else 0
    web = service(
        family,
        protocols=(NUMBER[protocol],),
        ports=((VIP_PORT, VIP_PORT),),
        backends=[backend(family.backends[0], port)],
    )
    path = nat(web)
    to, port = family.backends[0], port or VIP_PORT
    opening = [family.datagram(VIP_PORT, client_port=CLIENT_PORT)] * 2
    if protocol == "tcp":
        opening = [
            family.syn(VIP_PORT, client_port=CLIENT_PORT, seq=1),
            family.answer("SA", to, port, CLIENT_PORT, seq=9, ack=2),
            family.segment("A", VIP_PORT, client_port=CLIENT_PORT, seq=2, ack=10),
        ]
    for packet in opening:
        assert path.handle(bytearray(packet), 0, len(packet), COMPLETE, NOW) == REWRITTEN
    return path


@st.composite
def packets(draw: st.DrawFn) -> tuple[Family, str, bool, bool, bytes]:
    """A plain packet of the client's flow: family, protocol, mapped, from the backend, bytes."""
    family = draw(st.sampled_from(FAMILIES))
    protocol = draw(st.sampled_from(["tcp", "udp"]))
    mapped, back = draw(st.booleans()), draw(st.booleans())
    port = MAPPED_PORT if mapped else VIP_PORT
    ends = (family.backends[0], family.client) if back else (family.client, family.vip)
    ports = (port, CLIENT_PORT) if back else (CLIENT_PORT, VIP_PORT)
    fields: dict[str, object] = {"tc": draw(BYTE), "fl": draw(st.integers(0, 0xFFFFF))}
    if family is V4:
        fields = {"tos": draw(BYTE), "id": draw(SHORT), "flags": draw(st.sampled_from(["", "DF"]))}
    # Right, as a rule; a wrong one must stay as wrong as it was, so that the receiver drops it.
    checksum = draw(st.none() | SHORT)
    header = UDP(sport=ports[0], dport=ports[1], chksum=checksum)
    if protocol == "udp":
        if checksum == 0 and family is not V4:
            header.chksum = None
    else:
        options = draw(st.sampled_from([[], [("Timestamp", (7, 9))], [("NOP", None)] * 40]))
        header = TCP(
            sport=ports[0], dport=ports[1], flags=draw(FLAGS), seq=draw(NUMBERS), ack=draw(NUMBERS),
            window=draw(SHORT), urgptr=draw(SHORT), options=options, chksum=checksum,
        )  # fmt: skip
    head = ip(family, *ends, draw(st.integers(2, 255)), **fields)
    return family, protocol, mapped, back, bytes(head / header / Raw(draw(st.binary(max_size=200))))


def with_ttl(packet: bytes, ttl: int) -> bytes:
    """``packet`` with another TTL, and its IP checksum computed anew."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([ttl]) + packet[8:]
    head = packet[:8] + bytes([ttl]) + packet[9:10] + bytes(2) + packet[12:20]
    return head[:10] + scapy_checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]


@SOME
@given(drawn=packets())
def test_the_program_does_as_the_worker(
    module_bed: Bed, drawn: tuple[Family, str, bool, bool, bytes]
) -> None:
    """Every plain packet of a flow leaves either with the same bytes, but for a TTL less by 1."""
    family, protocol, mapped, back, packet = drawn
    buffer = bytearray(packet)
    path = worker(family, protocol, mapped)
    assert path.handle(buffer, 0, len(buffer), COMPLETE, NOW) == REWRITTEN
    module_bed.clear()
    module_bed.prepare(family, protocol, mapped=mapped)
    frame = module_bed.frame(packet, "priv" if back else "pub")
    ran = module_bed.run(frame, summed=True)
    if ran.counted == {"unknown_client": 1}:  # the first answer to a client is left to the worker
        assert ran.packet == packet
        ran = module_bed.run(frame, summed=True)
    assert ran.counted == {"carried": 1}
    at = 8 if family is V4 else 7
    assert ran.packet[at] == packet[at] - 1
    # The header's checksum is right, and with the TTL from before all is the same.
    assert ran.packet == with_ttl(ran.packet, ran.packet[at])
    assert with_ttl(ran.packet, packet[at]) == bytes(buffer)
