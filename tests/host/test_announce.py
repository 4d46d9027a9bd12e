"""Announcements: their bytes, their receivers, and their repetition."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP
from waiting import TIMEOUT, await_connected

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.host.announce import (
    REPEATED,
    Announcements,
    Announcer,
    Place,
    addresses_of,
    advertisement,
    announce_now,
    gratuitous_arp,
    held,
)
from paraglider.lab.namespace import Namespace

MAC = bytes.fromhex("020000000007")
VIPS = (ip_address("192.0.2.11"), ip_address("2001:db8::11"))


def test_the_arp_packet_is_an_announcement() -> None:
    """A request, sender and target alike (RFC 5227, 3), as scapy reads it."""
    packet = ARP(gratuitous_arp(VIPS[0], MAC))
    assert (packet.op, packet.hwsrc, packet.psrc) == (1, MAC.hex(":"), "192.0.2.11")
    assert (packet.hwdst, packet.pdst) == ("00:00:00:00:00:00", "192.0.2.11")


@pytest.mark.parametrize("router", [False, True])
def test_the_advertisement_overrides(router: bool) -> None:
    """To all nodes, unsolicited, with a correct checksum (RFC 4861, 7.2.6)."""
    data = advertisement(VIPS[1], MAC, ip_address("fe80::7"), router=router)
    packet = IPv6(data)
    told = packet[ICMPv6ND_NA]
    assert (packet.src, packet.dst, packet.hlim) == ("fe80::7", "ff02::1", 255)
    assert (told.tgt, told.R, told.S, told.O) == ("2001:db8::11", router, 0, 1)
    assert told[ICMPv6NDOptDstLLAddr].lladdr == MAC.hex(":")
    found, told.cksum = told.cksum, None
    assert IPv6(bytes(packet))[ICMPv6ND_NA].cksum == found


@pytest.fixture
def wire(inside: Namespace) -> Iterator[socket.socket]:
    """The packets that arrive at the other end of eth0, in another namespace."""
    with Namespace(inside.name.replace("-host", "-wire")) as other:
        inside.ip(f"link set eth1 netns {other.name}")
        other.sysctl("net.ipv6.conf.all.disable_ipv6=1")
        other.ip("link set eth1 up")
        await_connected(inside, "eth0")
        with other.entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        wire.bind(("eth1", 0x0003))
        wire.settimeout(TIMEOUT)
        with wire:
            yield wire


def claims(wire: socket.socket, count: int) -> list[tuple[str, str]]:
    """The next ``count`` addresses that were claimed, each with the hardware's."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        frame = wire.recv(2048)
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == 0x0806 and frame[28:32] == frame[38:42]:
            found.append((str(ip_address(frame[28:32])), frame[6:12].hex(":")))
        elif kind == 0x86DD and frame[20] == 58 and frame[54] == 136:
            found.append((str(ip_address(frame[62:78])), frame[80:86].hex(":")))
    return found


@pytest.mark.root
def test_which_addresses_are_announced(inside: Namespace, wire: socket.socket) -> None:
    """Addresses and proxy entries are announced; not on lo, and only on Ethernet."""
    inside.ip(
        "addr add 192.0.2.11/24 dev eth0",
        "addr add 2001:db8::11/64 dev eth0 nodad",
        "neigh add proxy 192.0.2.12 dev eth0",
        "neigh add proxy 2001:db8::12 dev eth0",
        "addr add 192.0.2.13/32 dev lo",
        "link set lo up",
    )
    others = (ip_address("192.0.2.12"), ip_address("2001:db8::12"), ip_address("192.0.2.13"))
    places = held([*VIPS, *others, ip_address("192.0.2.99")])
    on_link = [*VIPS, *others[:2]]
    assert set(places) == {*(("eth0", a) for a in on_link), ("lo", others[2])}
    announcer = Announcer()
    assert announcer.announce(places) == 4
    hardware = inside.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    assert set(claims(wire, 4)) == {(str(address), hardware) for address in on_link}
    announce_now(places)
    assert set(claims(wire, 4)) == {(str(address), hardware) for address in on_link}
    assert set(announcer.reachable(places)) == {("eth0", a) for a in on_link}
    inside.ip("link set eth0 down")
    assert announcer.reachable(places) == []
    assert announcer.announce([*places, ("gone0", VIPS[0])]) == 0
    announcer.close()


def test_what_may_be_announced_are_vips_and_gateways() -> None:
    """VIPs and gateways of any forward method, each once."""
    services = [
        {"name": "a", "vip": "192.0.2.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]},
        {"name": "b", "vip": "192.0.2.11/24", "protocol": "udp", "backends": ["10.0.0.1"]},
        {"name": "c", "vip": "2001:db8::11/64", "protocol": "udp", "backends": ["fd00::1"]},
    ]
    plain = Config.model_validate({"services": services})
    assert addresses_of(plain) == set(VIPS)
    sides = {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8"]},
    }
    sided = Config.model_validate({"services": services, "network": sides})
    assert addresses_of(sided) == {*VIPS, ip_address("10.0.0.254")}


class Ears(Announcer):
    """Records the announcements; ``down`` are links without a carrier."""

    def __init__(self) -> None:
        self.heard: list[list[IPAddress]] = []
        self.down: set[str] = set()

    def reachable(self, places: Iterable[Place]) -> list[Place]:
        """On links that are not down."""
        return [place for place in places if place[0] not in self.down]

    def announce(self, places: Iterable[Place]) -> int:
        """Keeps them."""
        self.heard.append([address for _, address in places])
        return len(self.heard[-1])


HERE = [("eth0", address) for address in VIPS]


def test_announcements_are_repeated_and_end() -> None:
    """At once and at the later times; addresses that the host has lost meanwhile are left out."""
    ears, now = Ears(), 100.0
    when = Announcements(ears)
    when.update(HERE, now)
    times = []
    while (pause := when.wait(now)) < 3600:
        now += pause
        times.append(now - 100.0)
        when.announce(now)
        when.update(HERE[:1], now)
    assert tuple(times) == REPEATED
    assert ears.heard == [[*VIPS], *[[VIPS[0]]] * (len(REPEATED) - 1)]
    when.update(HERE[:1], now)
    assert when.wait(now) == float("inf")


def test_what_comes_back_is_announced_again() -> None:
    """An address that returns, and the addresses of a link that was down; not those that stayed."""
    ears = Ears()
    when = Announcements(ears)
    when.update(HERE, 0.0)
    when.announce(10.0)
    when.update(HERE[:1], 20.0)
    when.update(HERE, 30.0)
    when.announce(40.0)
    assert ears.heard == [[*VIPS], [VIPS[1]]]
    ears.down.add("eth0")
    when.update(HERE, 50.0)
    ears.down.clear()
    when.update(HERE, 60.0)
    when.announce(70.0)
    assert ears.heard[2:] == [[*VIPS]]


def test_announcements_that_are_late_are_sent_once() -> None:
    """A process that was stopped makes up for nothing; two that are due at once are one."""
    ears = Ears()
    when = Announcements(ears)
    when.update(HERE[:1], 0.0)
    when.update(HERE, 0.5)
    when.announce(1000.0)
    assert ears.heard == [[*VIPS]]
    when.announce(2000.0)
    assert len(ears.heard) == 1
