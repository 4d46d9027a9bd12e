"""Raw output in a namespace: packets leave as they are, and a router's errors narrow the path."""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
import sys
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from waiting import TIMEOUT, wait_until

from paraglider.core.encapsulation import Outer
from paraglider.netfilter.raw_output import RawOutput

pytestmark = pytest.mark.root

HERE = {4: "10.1.0.1", 6: "fd00:1::1"}
NEXT = {4: "10.1.0.2", 6: "fd00:1::2"}
FAR = {4: "10.2.0.1", 6: "fd00:2::1"}
families = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
def link(inside: Any) -> Any:
    """A namespace with addresses at eth0, behind whose other end, eth1, is a router to FAR."""
    for family, bits in ((4, 24), (6, 64)):
        network = {4: "10.2.0.0/24", 6: "fd00:2::/64"}[family]
        nodad = " nodad" if family == 6 else ""
        inside.ip(
            f"address add {HERE[family]}/{bits} dev eth0{nodad}",
            f"neigh add {NEXT[family]} lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
            f"route add {network} via {NEXT[family]}",
        )
    return inside


def heard(device: str) -> socket.socket:
    """A socket that hears what arrives at ``device``."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind((device, 0))
    made.settimeout(TIMEOUT)
    return made


def arrived(listener: socket.socket, wanted: bytes) -> bool:
    """Wait for a frame with ``wanted`` behind its head."""
    while True:
        frame = listener.recv(70_000)
        if frame[14 : 14 + len(wanted)] == wanted:
            return True


def outer(family: int, size: int, port: int = 0) -> bytes:
    """An encapsulated packet from here to FAR."""
    ip = IP(src="192.0.2.1", dst="192.0.2.2") if family == 4 else IPv6(src="fd09::1", dst="fd09::2")
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    ends = (socket.inet_pton(kind, HERE[family]), socket.inet_pton(kind, FAR[family]))
    return Outer(*ends, port).wrap(bytes(ip / UDP() / bytes(size)), 7)


@families
def test_a_packet_leaves_as_it_is(link: Any, family: int) -> None:
    """With its own headers, but for the IPv4 identification, which the kernel fills."""
    output, listener = RawOutput(0x55000000), heard("eth1")
    packet = outer(family, 100)
    assert output.send(packet, FAR[family]) == 0
    if family == 6:
        assert arrived(listener, packet)
    else:
        assert arrived(listener, packet[:4])
    output.close()
    listener.close()


@families
def test_the_path(link: Any, family: int) -> None:
    """The MTU of the device, and the address that the host would use; None without a route."""
    output = RawOutput(0x55000000)
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    assert output.path(FAR[family]) == (1500, socket.inet_pton(kind, HERE[family]))
    assert output.path({4: "203.0.113.1", 6: "2001:db8:9::1"}[family]) is None
    assert output.send(outer(family, 10), {4: "203.0.113.1", 6: "2001:db8:9::1"}[family]) in (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    )
    link.ip("link set eth0 mtu 1400")
    found = output.path(FAR[family])
    assert found is not None
    assert found[0] == 1400
    assert output.send(outer(family, 1390), FAR[family]) == errno.EMSGSIZE
    output.close()


@families
@pytest.mark.parametrize("port", [0, 6080], ids=["ipip", "gue"])
def test_a_router_narrows_the_path(link: Any, family: int, port: int) -> None:
    """Its error quotes an outer header; after it the path is narrower, for every process."""
    output, other = RawOutput(0x55000000), RawOutput(0x55000000)
    quoted = outer(family, 1400, port)
    if family == 4:
        router = IP(src=NEXT[4], dst=HERE[4])
        error = router / ICMP(type=3, code=4, nexthopmtu=1380) / quoted[:500]
        kind = 0x800
    else:
        error = IPv6(src=NEXT[6], dst=HERE[6]) / ICMPv6PacketTooBig(mtu=1380) / quoted[:1000]
        kind = 0x86DD
    mac = bytes.fromhex(
        link.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip().replace(":", "")
    )
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("eth1", 0))
    sender.send(mac + b"\x02\0\0\0\0\x02" + struct.pack("!H", kind) + bytes(error))
    sender.close()

    def narrowed(each: RawOutput) -> bool:
        found = each.path(FAR[family])
        assert found is not None
        return found[0] == 1380

    for each in (output, other):
        wait_until(lambda each=each: narrowed(each))
        assert each.send(outer(family, 10), FAR[family]) == 0
        each.close()


def test_without_the_capability() -> None:
    """The message says what the process lacks."""
    script = (
        "import os, json\n"
        "from paraglider.errors import PlatformError\n"
        "from paraglider.netfilter.raw_output import RawOutput\n"
        "os.setgid(65534); os.setuid(65534)\n"  # who may not read a clone of root
        "try:\n    RawOutput(1)\n"
        "except PlatformError as error:\n    print(json.dumps(str(error)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "CAP_NET_RAW" in json.loads(done.stdout)
