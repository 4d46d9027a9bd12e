"""Tests of ``paraglider.host.capture``: scapy writes the captures, damage is done by hand."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, wrpcap

from paraglider.errors import OperatorError
from paraglider.host.capture import LONGEST, ip_packets

FOUR = IP(src="192.0.2.1", dst="198.51.100.1") / TCP(sport=1, dport=80) / Raw(b"hello")
SIX = IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1, dport=80)
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def read(content: bytes) -> list[bytes | None]:
    """The packets in a capture of this content."""
    return list(ip_packets(io.BytesIO(content), "f"))


def pcap(*frames: bytes, link: int = 1, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    """A capture file by the specification."""
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    records = (struct.pack(f"{order}IIII", 0, 0, len(f), len(f)) + f for f in frames)
    return head + b"".join(records)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of a pcapng file."""
    length = len(body) + 12
    return struct.pack(f"{order}II", kind, length) + body + struct.pack(f"{order}I", length)


def section(order: str = "<") -> bytes:
    """The head of a pcapng file, with an Ethernet interface."""
    head = struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)
    interface = struct.pack(f"{order}HHI", 1, 0, 0)
    return block(0x0A0D0D0A, head, order) + block(1, interface, order)


FRAME = bytes(Ether(**MACS) / FOUR)


@pytest.mark.parametrize(
    ("link", "packet"),
    [
        (Ether(**MACS), FOUR),
        (Ether(**MACS), SIX),
        (Ether(**MACS) / Dot1Q(vlan=5), FOUR),
        (Ether(**MACS) / Dot1AD(vlan=5) / Dot1Q(vlan=6), SIX),
        (CookedLinux(), FOUR),
        (CookedLinuxV2(), SIX),
        (Loopback(), FOUR),
        (None, SIX),
    ],
)
def test_scapys_captures(tmp_path: Path, link: Packet | None, packet: Packet) -> None:
    """Packets that scapy writes into a capture, with every kind of frame, are read."""
    frame = packet if link is None else link / packet
    wrpcap(str(tmp_path / "f"), [frame, frame])
    assert read((tmp_path / "f").read_bytes()) == [bytes(packet), bytes(packet)]


def test_scapys_pcapng(tmp_path: Path) -> None:
    """pcapng, which Wireshark writes, is read like pcap."""
    with PcapNgWriter(str(tmp_path / "f")) as writer:
        writer.write([Ether(**MACS) / FOUR, Ether(**MACS) / ARP(), Ether(**MACS) / SIX])
    assert read((tmp_path / "f").read_bytes()) == [bytes(FOUR), None, bytes(SIX)]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_either_byte_order(order: str, magic: int) -> None:
    """Both byte orders, with microseconds and nanoseconds."""
    assert read(pcap(FRAME, order=order, magic=magic)) == [bytes(FOUR)]


@pytest.mark.parametrize("order", "<>")
def test_blocks_of_pcapng(order: str) -> None:
    """Packets of each kind are read, other blocks are skipped, a section resets the interfaces."""
    padded = FRAME + bytes(-len(FRAME) % 4)
    sizes = struct.pack(f"{order}II", len(FRAME), len(FRAME))
    enhanced = block(6, struct.pack(f"{order}III", 0, 0, 0) + sizes + padded, order)
    old = block(2, struct.pack(f"{order}HHII", 0, 0, 0, 0) + sizes + padded, order)
    simple = block(3, sizes[:4] + padded, order)
    other = block(0x0BAD, b"anything", order)
    content = (
        section(order)
        + enhanced
        + other
        + old
        + section("<")
        + block(3, struct.pack("<I", len(FRAME)) + padded)
    )
    found = read(content)
    assert found[:2] == [bytes(FOUR)] * 2
    assert found[2] is not None
    assert found[2].startswith(bytes(FOUR))
    assert read(section(order) + simple)[0] is not None


@pytest.mark.parametrize("content", [b"", b"abc", b"GET / HTTP/1.0\r\n", b"\0" * 100])
def test_what_is_no_capture(content: bytes) -> None:
    """Another file is refused by name."""
    with pytest.raises(OperatorError, match="f is not a packet capture; name a file that"):
        read(content)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (pcap(link=105), "f: link type 105 is not supported"),
        (section()[:28] + block(1, struct.pack("<HHI", 127, 0, 0)), "link type 127"),
        (pcap() + struct.pack("<IIII", 0, 0, LONGEST + 1, 0), "damaged at block 1"),
        (section() + struct.pack("<II", 6, 5), "damaged at block 3"),
        (section() + struct.pack("<II", 6, 13), "damaged at block 3"),
        (section() + struct.pack("<II", 6, 1 << 31), "damaged at block 3"),
        (section() + block(6, struct.pack("<IIIII", 1, 0, 0, 0, 0)), "damaged at block 3"),
        (section() + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)), "damaged at block 3"),
        (section() + block(6, bytes(4)), "damaged at block 3"),
        (section() + block(1, b""), "damaged at block 3"),
        (b"\x0a\x0d\x0d\x0a" + bytes(20), "damaged at block 1"),
    ],
)
def test_damage_is_an_error(content: bytes, what: str) -> None:
    """Lengths that cannot be are refused with the place, before anything is read for them."""
    with pytest.raises(OperatorError, match=what):
        read(content)


@pytest.mark.parametrize("cut", range(1, len(FRAME) + 16, 7))
def test_a_capture_in_progress_ends_within_a_packet(cut: int) -> None:
    """A truncated capture is read up to its last whole packet."""
    assert read(pcap(FRAME, FRAME)[:-cut]) == [bytes(FOUR)]


@given(st.sampled_from([pcap(FRAME, FRAME), section()]), st.integers(0, 80), st.binary(max_size=80))
def test_no_bytes_raise_anything_else(content: bytes, keep: int, rest: bytes) -> None:
    """After a valid beginning all bytes give packets or OperatorError."""
    with contextlib.suppress(OperatorError):
        for packet in read(content[:keep] + rest):
            assert packet is None or packet[0] >> 4 in (4, 6)
