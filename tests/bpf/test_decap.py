"""The program that takes outer headers off, by BPF_PROG_TEST_RUN: packets in, packets out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

from paraglider.bpf import loader, syscall
from paraglider.bpf.elements import Elements
from paraglider.core.encapsulation import Outer
from paraglider.host.decapsulation import OBJECT, PROGRAM, TunnelEnd
from tests.bpf.programs import UNSPEC

pytestmark = pytest.mark.root

PORT = 6080
SOURCE = {4: "172.20.0.254", 6: "fd00:20::fe"}
BACKEND = {4: "10.0.0.1", 6: "fd00:10::1"}
VIP = {4: "192.168.0.11", 6: "2001:db8::11"}
CLIENT = {4: "192.168.0.100", 6: "2001:db8::100"}
OTHER = {4: "192.168.0.12", 6: "2001:db8::12"}
LAYER = {4: IP, 6: IPv6}
TYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
MACS = bytes(6) + b"\x02\0\0\0\0\x01"  # the loopback device's own: the packet is for this host
SHOT = 2

families = pytest.mark.parametrize("family", [4, 6])
ports = pytest.mark.parametrize("port", [0, PORT], ids=["ipip", "gue"])


@pytest.fixture(scope="module")
def program() -> Iterator[int]:
    """The program, with the ends of VIP at BACKEND in both families, by both encapsulations."""
    number = syscall.create_map(syscall.HASH, 36, 4, 16, name="ends")
    ends = Elements(number, 36, 4)
    for family in (4, 6):
        for port in (0, PORT):
            end = TunnelEnd(ip_address(BACKEND[family]), ip_address(VIP[family]), port)
            ends.put(end.key, b"\1\0\0\0")
    image = resources.files("paraglider.bpf").joinpath(OBJECT).read_bytes()
    loaded = loader.load(image, PROGRAM, {"ends": number})
    yield loaded
    os.close(loaded)
    os.close(number)


def client(family: int, vip: str = "", **fields: object) -> bytes:
    """A packet of the client."""
    ip = LAYER[family](src=CLIENT[family], dst=vip or VIP[family], **fields)
    return bytes(ip / TCP(sport=40000, dport=80, flags="A") / b"hello")


def wrapped(family: int, inner: bytes, port: int, backend: str = "") -> bytes:
    """``inner`` as the balancer sends it."""
    ends = (ip_address(SOURCE[family]), ip_address(backend or BACKEND[family]))
    return Outer(ends[0].packed, ends[1].packed, port).wrap(inner, 0x1234567)


def run(program: int, family: int, packet: bytes, macs: bytes = MACS) -> tuple[int, bytes]:
    """What the program returns, signed, and the packet behind it."""
    found = syscall.run_program(program, macs + TYPE[family] + packet)
    value = found.value - (1 << 32) if found.value >> 31 else found.value
    assert found.packet[:14] == macs + TYPE[family]
    return value, found.packet[14:]


def unchanged(program: int, family: int, packet: bytes) -> bool:
    """Whether it goes on as it came."""
    return run(program, family, packet) == (UNSPEC, packet)


@ports
@families
def test_the_packet_inside_goes_on(program: int, family: int, port: int) -> None:
    """Byte by byte as the client sent it."""
    inner = client(family)
    assert run(program, family, wrapped(family, inner, port)) == (UNSPEC, inner)


@ports
@families
def test_a_fragment_inside(program: int, family: int, port: int) -> None:
    """The balancer sends fragments one by one; the host's stack puts them together."""
    if family == 4:
        inner = client(4, flags="MF", frag=3)
    else:
        piece = IPv6ExtHdrFragment(offset=3, m=1, id=9) / bytes(64)
        inner = bytes(IPv6(src=CLIENT[6], dst=VIP[6]) / piece)
    assert run(program, family, wrapped(family, inner, port)) == (UNSPEC, inner)


@ports
@families
def test_what_is_no_end_of_ours(program: int, family: int, port: int) -> None:
    """Another VIP inside, another backend, another port: each goes on unchanged."""
    assert unchanged(program, family, wrapped(family, client(family, OTHER[family]), port))
    assert unchanged(program, family, wrapped(family, client(family), port, OTHER[family]))
    if port:
        assert unchanged(program, family, wrapped(family, client(family), port + 1))


@families
def test_a_packet_without_an_outer_header(program: int, family: int) -> None:
    """The VIP's own packets, and UDP to the port of GUE that is none."""
    assert unchanged(program, family, client(family))
    ip = LAYER[family](src=SOURCE[family], dst=BACKEND[family])
    for payload in (b"", b"hi", bytes(60), b"\x00\x04\x00\x00" + bytes(60)):
        assert unchanged(program, family, bytes(ip / UDP(sport=9, dport=PORT) / payload))


@ports
@families
def test_a_cut_packet(program: int, family: int, port: int) -> None:
    """At every length: it goes on, or is the whole packet inside as far as it is there."""
    inner = client(family)
    packet = wrapped(family, inner, port)
    least = len(packet) - len(inner) + (20 if family == 4 else 40)
    for size in range(20 if family == 4 else 40, len(packet)):
        value, after = run(program, family, packet[:size])
        assert value == UNSPEC
        assert after == (packet[:size] if size < least else inner[: size - len(packet)])


@families
@pytest.mark.parametrize("kind", [b"\x81\x00", b"\x88\xa8"], ids=["802.1Q", "802.1ad"])
def test_a_tagged_frame(program: int, family: int, kind: bytes) -> None:
    """It is left to its VLAN device, where it is seen again without the tag."""
    tagged = kind + b"\0\5" + TYPE[family] + wrapped(family, client(family), 0)
    found = syscall.run_program(program, MACS + tagged)
    assert (found.value, found.packet) == (UNSPEC & 0xFFFFFFFF, MACS + tagged)


@families
def test_for_another_host(program: int, family: int) -> None:
    """A frame for another MAC is not this host's."""
    packet = wrapped(family, client(family), 0)
    macs = b"\x02\0\0\0\0\x09" + MACS[6:]
    assert run(program, family, packet, macs) == (UNSPEC, packet)


def test_an_outer_fragment_and_options(program: int) -> None:
    """They are left to the host's stack."""
    packet = wrapped(4, client(4), 0)
    fragment = IP(packet)
    fragment.flags = "MF"
    del fragment.chksum
    assert unchanged(program, 4, bytes(fragment))
    options = bytes([0x46]) + packet[1:20] + b"\x01\x01\x01\x00" + packet[20:]
    assert unchanged(program, 4, options)


@pytest.mark.parametrize(
    ("inner", "outer", "after"),
    [(0, 0, 0), (0, 3, None), (1, 1, 1), (1, 3, 3), (2, 2, 2), (2, 3, 3), (3, 3, 3), (2, 0, 2)],
)
@ports
@families
def test_congestion(
    program: int, family: int, port: int, inner: int, outer: int, after: int | None
) -> None:
    """RFC 6040 §4.2: a router's mark gets to the packet inside, with its checksum; one that cannot
    have it is dropped. DSCP stays that of the packet inside.
    """
    name = "tos" if family == 4 else "tc"
    packet = bytearray(wrapped(family, client(family, **{name: 0x28 | inner}), port))
    if family == 4:
        ip = IP(bytes(packet))
        ip.tos = outer
        del ip.chksum
        packet = bytearray(bytes(ip))
    else:
        packet[1] = packet[1] & 0x0F | outer << 4
        packet[0] = 0x60
    value, got = run(program, family, bytes(packet))
    if after is None:
        assert value == SHOT
    else:
        assert (value, got) == (UNSPEC, client(family, **{name: 0x28 | after}))
