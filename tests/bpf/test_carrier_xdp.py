"""The program at XDP: what it carries itself, and what it leaves to tc, unchanged."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from paraglider.bpf import layout
from paraglider.core.checksum import ones_sum
from tests.bpf.carrying import CLIENT_PORT, VIP_PORT, Bed, builder, make_bed, tcp, udp
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, V4, Family, packed
from tests.waiting import wait_until

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


@pytest.fixture(scope="module")
def module_bed() -> Iterator[Bed]:
    """Frames meet the program at XDP first."""
    with make_bed() as bed:
        bed.hook = "xdp"
        yield bed


def request(family: Family, protocol: str = "tcp", data: bytes = b"data") -> bytes:
    """A packet of the client's flow."""
    build = builder(family, protocol, data)
    return bytes(build(family.client, family.vip, CLIENT_PORT, VIP_PORT, 64))


@families
@protocols
def test_the_frame_has_the_macs_of_the_next_hop(bed: Bed, family: Family, protocol: str) -> None:
    """Of a carried frame: the neighbour's is the destination, the interface's own the source."""
    bed.prepare(family, protocol)
    backend = family.backends[0]
    bed.namespace.ip(f"neigh replace {backend} lladdr 02:00:00:00:00:77 dev priv nud permanent")
    ran = bed.run(bed.frame(request(family, protocol)))
    assert (ran.hook, ran.counted) == ("xdp", {"carried": 1})
    assert ran.frame[:12] == bytes.fromhex("020000000077 020000000002")
    bed.namespace.ip(f"neigh replace {backend} lladdr 02:00:00:00:01:02 dev priv nud permanent")


def unfinished(packet: bytes) -> bytes:
    """``packet`` as a kernel hands it to a device that completes checksums: the field has the sum
    of the pseudo header (Linux, include/linux/skbuff.h, CHECKSUM_PARTIAL).
    """
    four = packet[0] >> 4 == 4
    start, ends = (20, packet[12:20]) if four else (40, packet[8:40])
    protocol = packet[9] if four else packet[6]
    pseudo = ones_sum(ends + struct.pack("!HH", protocol, len(packet) - start))
    at = start + (16 if protocol == 6 else 6)
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    return packet[:at] + struct.pack("!H", pseudo) + packet[at + 2 :]


@families
@protocols
@pytest.mark.parametrize("data", [b"", b"even", b"an odd number"])
def test_an_unfinished_checksum(bed: Bed, family: Family, protocol: str, data: bytes) -> None:
    """The packet's sum would stay as it is in a frame of XDP, so the packet is left to tc."""
    bed.prepare(family, protocol)
    frame = bed.frame(unfinished(request(family, protocol, data)))
    ran = bed.run_at_xdp(frame)
    assert (ran.carried, ran.frame, ran.counted) == (False, frame, {"unfinished": 1})
    assert bed.run(frame).hook == "tc"
    assert bed.run(bed.frame(request(family, protocol, data))).hook == "xdp"


def test_udp_without_checksum_is_finished(bed: Bed) -> None:
    """It has none to complete."""
    bed.prepare(V4, "udp")
    packet = bytes(udp(V4, b"query", checksum=0)(V4.client, V4.vip, CLIENT_PORT, VIP_PORT, 64))
    assert bed.run(bed.frame(packet)).hook == "xdp"


@families
def test_an_interface_that_takes_no_frames_of_xdp(bed: Bed, family: Family) -> None:
    """What would leave by it is left to tc, which sends it there."""
    bed.prepare(family, "tcp")
    frame = bed.frame(request(family))
    bed.admit("pub")
    ran = bed.run_at_xdp(frame)
    assert (ran.carried, ran.frame, ran.counted) == (False, frame, {"no_xmit": 1})
    assert bed.run(frame).carried
    bed.admit("pub", "priv")
    assert bed.run(frame).hook == "xdp"


@families
def test_a_next_hop_without_an_entry(bed: Bed, family: Family) -> None:
    """The kernel resolves it by the packet that tc sends; so does one that cannot be reached."""
    bed.prepare(family, "tcp")
    backend = family.backends[0]
    bed.namespace.ip(f"neigh del {backend} dev priv")
    frame = bed.frame(request(family))
    for _ in range(3):
        ran = bed.run_at_xdp(frame)
        assert (ran.carried, ran.frame, ran.counted) == (False, frame, {"neighbour": 1})
    bed.namespace.ip(f"neigh add {backend} lladdr 02:00:00:00:01:02 dev priv nud permanent")
    assert bed.run(frame).hook == "xdp"


@families
def test_one_packet_a_second_of_each_next_hop_passes_tc(bed: Bed, family: Family) -> None:
    """From it the kernel sees that the neighbour is in use, and checks the neighbour's address.
    Each direction has a next hop of its own.
    """
    bed.prepare(family, "tcp")
    reply = tcp(family)(family.backends[0], family.client, VIP_PORT, CLIENT_PORT, 64)
    frames = (bed.frame(request(family)), bed.frame(bytes(reply), "priv"))
    for frame in frames:
        wait_until(lambda frame=frame: bed.run_at_xdp(frame).counted == {"neighbour": 1})
        wait_until(lambda frame=frame: bed.run_at_xdp(frame).carried)
    for frame in frames:
        wait_until(lambda frame=frame: bed.run_at_xdp(frame).counted == {"neighbour": 1})


@families
def test_frames_of_others(bed: Bed, family: Family) -> None:
    """For another MAC address, for all, with a tag, or from an interface that is not listed: none
    is carried at XDP.
    """
    bed.prepare(family, "tcp")
    frame = bed.frame(request(family))
    assert bed.run(frame).hook == "xdp"
    for other in (
        bytes.fromhex("020000000099") + frame[6:],
        b"\xff" * 6 + frame[6:],
        b"\x33\x33" + frame[2:],
        frame[:12] + b"\x81\x00\x00\x05" + frame[12:],
        frame[:12] + b"\x88\xa8\x00\x05" + frame[12:],
        frame[:14],
    ):
        ran = bed.run_at_xdp(other)
        assert (ran.carried, ran.frame, ran.counted) == (False, other, {})
    bed.forbid("pub")
    assert not bed.run_at_xdp(frame).carried
    bed.admit("pub", "priv")


@families
def test_it_opens_no_flow_and_counts_no_opening(deciding: Deciding, family: Family) -> None:
    """New flows of a service about which the program decides are left to tc, however often a packet
    comes: no entry, no turn, no event.
    """
    bed = deciding.bed
    syn = tcp(family, "S")(family.client, family.vip, CLIENT_PORT, VIP_PORT, 64)
    for kind in ("turn", "flow"):
        deciding.decide(family, kind)
        for packet in (bytes(syn), request(family, "udp")):
            ran = bed.run_at_xdp(bed.frame(packet))
            assert (ran.carried, ran.counted) == (False, {})
        status = deciding.decisions.status(deciding.index)
        assert deciding.flows() == 0
        assert status.stateless == 0
    assert bed.events() == []
    assert deciding.first(family, "tcp") == "opened"


@families
def test_the_answer_from_which_nft_learns_a_client(bed: Bed, family: Family) -> None:
    """XDP leaves it to tc, and does not record that it has passed."""
    bed.translate(family)
    bed.origin(family, "tcp", VIP_PORT)
    bed.install(family, "tcp", flags=layout.REPLIED | layout.ESTABLISHED)
    build = tcp(family, "PA", b"page")
    answer = bytes(build(family.backends[0], family.client, VIP_PORT, CLIENT_PORT, 64))
    frame = bed.frame(answer, "priv")
    for _ in range(2):
        assert not bed.run_at_xdp(frame).carried
    assert bed.run(frame).counted == {"unknown_client": 1}
    assert bed.run(frame).hook == "xdp"


@families
def test_tunnels_are_left_to_tc(bed: Bed, family: Family) -> None:
    """Their outer headers are not written at XDP."""
    bed.prepare(family, "tcp")
    value = bytearray(bed.maps.translations.get(layout.INDEX.pack(7)) or b"")
    value[37] = layout.TUNNEL
    bed.maps.translations.put(layout.INDEX.pack(7), bytes(value))
    ran = bed.run_at_xdp(bed.frame(request(family)))
    assert (ran.carried, ran.counted) == (False, {})
    assert packed(family.vip) in ran.packet
