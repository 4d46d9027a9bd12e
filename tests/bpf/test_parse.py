"""Reading of frames (``parse.h``): no length and no byte makes an error, or changes a packet that
is not carried.
"""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from paraglider.bpf import syscall
from tests.bpf.carrying import CLIENT_PORT, VIP_PORT, Bed, builder
from tests.core.packets import FAMILIES, SOME, V4, Family

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])

ETHERNET = 14
DATA = b"some data"


def plain(family: Family, protocol: str) -> bytes:
    """A packet of the client's flow."""
    ends = (family.client, family.vip, CLIENT_PORT, VIP_PORT)
    return bytes(builder(family, protocol, DATA)(*ends, 64))


PLAIN = {
    (family, protocol): plain(family, protocol)
    for family in FAMILIES
    for protocol in ("tcp", "udp")
}


def with_length(family: Family, packet: bytes) -> bytes:
    """``packet`` with its own length in its IP header."""
    at, length = (2, len(packet)) if family.number == 4 else (4, len(packet) - 40)
    return packet[:at] + max(length, 0).to_bytes(2, "big") + packet[at + 2 :]


@families
@protocols
def test_every_length(bed: Bed, family: Family, protocol: str) -> None:
    """A frame that was cut off passes unchanged, wherever it was cut; one whose IP length says how
    long it is is carried from the length of its headers on.
    """
    bed.prepare(family, protocol)
    packet = plain(family, protocol)
    header = 20 if family.number == 4 else 40
    carried = header + (20 if protocol == "tcp" else 8)
    for length in range(header, len(packet)):  # of a shorter frame the kernel makes no test run
        frame = bed.frame(packet)[: ETHERNET + length]
        ran = bed.run(frame)
        assert (ran.carried, ran.frame, ran.counted) == (False, frame, {"short": 1}), length
        frame = bed.frame(with_length(family, packet[:length]))
        ran = bed.run(frame)
        assert ran.counted == {"carried" if length >= carried else "short": 1}, length
        assert ran.carried == (ran.frame != frame) == (length >= carried)


def come_by(device: str, bed: Bed, frames: list[bytes], reason: str) -> None:
    """Let ``frames`` come in by ``device``, and wait until all are counted by ``reason``."""
    before = bed.counts()
    link = syscall.attach_tcx(bed.program, socket.if_nametoindex(device))
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((f"{device}-peer", 0))
            for frame in frames:
                sender.send(frame)
        wait_until(lambda: bed.counts()[reason] >= before[reason] + len(frames), bed.counts)
    finally:
        os.close(link)
    assert bed.counts()[reason] == before[reason] + len(frames)
    assert bed.counts()["carried"] == before["carried"]


@families
def test_a_frame_shorter_than_an_ip_header(bed: Bed, family: Family) -> None:
    """Frames that end within the IP header are short."""
    bed.prepare(family, "tcp")
    frame = bed.frame(PLAIN[family, "tcp"])
    header = 20 if family.number == 4 else 40
    come_by("pub", bed, [frame[: ETHERNET + length] for length in range(header)], "short")


@families
@pytest.mark.parametrize("kind", [b"\x81\x00", b"\x88\xa8"], ids=("802.1Q", "802.1ad"))
def test_a_tagged_frame_that_a_device_receives(bed: Bed, family: Family, kind: bytes) -> None:
    """The kernel takes the tag out of the frame, which then looks as if it had none."""
    bed.prepare(family, "tcp")
    frame = bed.frame(PLAIN[family, "tcp"])
    come_by("pub", bed, [frame[:12] + kind + b"\0\5" + frame[12:]], "vlan")


@families
@protocols
def test_padding_hides_no_header(bed: Bed, family: Family, protocol: str) -> None:
    """A packet that ends before its headers do passes, though the frame goes on after it."""
    bed.prepare(family, protocol)
    packet = plain(family, protocol)
    header = 20 if family.number == 4 else 40
    for length in range(header, header + (20 if protocol == "tcp" else 8)):
        cut = with_length(family, packet[:length])
        frame = bed.frame(cut + packet[length:])
        ran = bed.run(frame)
        assert (ran.carried, ran.frame, ran.counted) == (False, frame, {"short": 1}), length


@SOME
@given(
    family=st.sampled_from(FAMILIES),
    protocol=st.sampled_from(["tcp", "udp"]),
    changes=st.lists(st.tuples(st.integers(0, 93), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.integers(1, 120),
)
def test_no_byte_makes_an_error(
    module_bed: Bed, family: Family, protocol: str, changes: list[tuple[int, int]], length: int
) -> None:
    """Whatever the bytes, a frame is carried or passes unchanged, and is counted once; what is
    carried is as long as it was, and differs in addresses, ports, TTL and checksums only.
    """
    bed = module_bed
    bed.clear()
    bed.prepare(family, protocol)
    packet = bytearray(PLAIN[family, protocol])
    for at, value in changes:
        if at < len(packet):
            packet[at] = value
    ether = bed.frame(PLAIN[family, protocol])[:ETHERNET]
    frame = ether + bytes(packet[: max(length, 20 if family is V4 else 40)])
    ran = bed.run(frame)
    assert sum(ran.counted.values()) == 1
    assert len(ran.frame) == len(frame)
    if not ran.carried:
        assert ran.frame == frame
        return
    assert set(ran.counted) == {"carried"}
    # At XDP the program writes the addresses of Ethernet too.
    later = range(ETHERNET, len(frame))
    changed = {at - ETHERNET for at in later if frame[at] != ran.frame[at]}
    header = 20 if family.number == 4 else 40
    check = header + (16 if protocol == "tcp" else 6)
    allowed = {header + 2, header + 3, check, check + 1}
    allowed |= {8, 10, 11, *range(16, 20)} if family is V4 else {7, *range(24, 40)}
    assert changed <= allowed
