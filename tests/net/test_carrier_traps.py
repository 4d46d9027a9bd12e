"""What must not mislead the BPF carrier: each case in the network, with the counter of its reason.

One balancer is at work for all of them, with two workers, and links that finish no checksums:
what the program has written wrongly, the receiver drops and counts.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from carrying import Carried, mac, opened, wire, wrong_checksums
from counting import connections
from inside import InsideBalancer
from peer import digest, pattern
from scapy.layers import inet, inet6
from unsent import AGAIN

from paraglider.bpf import syscall
from paraglider.bpf.layout import ESTABLISHED, REASONS
from paraglider.bpf.loader import load
from paraglider.bpf.maps import CarrierMaps
from paraglider.host.carrier_support import PROGRAM, object_file
from paraglider.lab.balancer import start_backend
from paraglider.lab.topology import CLIENT, GATEWAY, VIP, Plan, Topology, backend_address

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
FAMILIES = [4, 6]
TCP, UDP, WEB = 9000, 5353, 80
SMALL = 1400  # bytes of the narrow link
SIZE = 400_000
# linux/in.h, linux/in6.h
IP_RECVERR, IPV6_RECVERR = 11, 25
TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}  # of Ethernet frames


class Traps(Carried):
    """The network, and the balancer at work in it."""

    def __init__(self, net: Topology, running: InsideBalancer) -> None:
        super().__init__(running)
        self.net = net

    def udp(self, family: int) -> Asking:
        """A client whose flow of datagrams is carried."""
        return Asking(self, family)

    def tcp(self, family: int, port: int = TCP) -> socket.socket:
        """A connection that is carried."""
        made = opened(self.net.client, family, socket.SOCK_STREAM)
        with self.counting("carried", 2):
            made.connect((VIP[family], port))
            assert download(made, 3) == pattern(3)
        return made


class Asking:
    """A socket of UDP in the client, with a flow that BPF carries."""

    def __init__(self, world: Traps, family: int) -> None:
        self.sock = opened(world.net.client, family, socket.SOCK_DGRAM)
        self.sock.connect((VIP[family], UDP))
        self.port: int = self.sock.getsockname()[1]
        self.name = self.ask()

        def carried() -> bool:
            before = world.counted("carried")
            assert self.ask() == self.name
            return world.counted("carried") == before + 2

        world.until(carried, "a flow that is carried")

    def ask(self, data: bytes = b"who") -> str:
        """Which backend answers, with the same datagram."""
        self.sock.send(data)
        name, _, echo = self.sock.recv(1 << 16).partition(b" ")
        assert echo == data
        return name.decode()

    def ttl(self, hops: int) -> None:
        """Send with so many hops from now on, and hear of ICMP errors."""
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def download(sock: socket.socket, size: int) -> bytes:
    """What ``peer.py serve`` sends."""
    sock.sendall(f"down {size}\n".encode())
    return _read(sock, size)


def upload(sock: socket.socket, size: int) -> bool:
    """Whether ``peer.py serve`` gets what is sent to it."""
    data = pattern(size)
    sock.sendall(f"up {size}\n".encode() + data)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += sock.recv(100)
    return answer.decode().strip() == digest(data)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, "the connection ended"
        data += chunk
    return data


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traps]:
    """Two backends with servers of TCP, UDP and HTTP, and services of both families for each."""
    directory = tmp_path_factory.mktemp("traps")
    (directory / "empty").mkdir()
    with Topology(Plan(backends=2)) as net:
        net.balancer.run([sys.executable, str(HERE / "links.py"), "sums"])
        for namespace in net.namespaces:
            namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        for number, backend in enumerate(net.backends, 1):
            command = [sys.executable, str(HERE / "peer.py"), "serve", str(TCP)]
            server = backend.popen(command, stdout=subprocess.PIPE)
            assert server.stdout is not None
            assert server.stdout.readline() == b'"listening"\n'
            start_backend(backend, f"backend{number}", http=(WEB,), udp=(UDP,))
        running = InsideBalancer(net.balancer, directory, text(directory))
        running.set_up()
        try:
            running.start()
            yield Traps(net, running)
            assert running.stop() == 0
            assert not running.trouble(), running.log()
        finally:
            running.close()


def text(directory: Path) -> str:
    """The configuration."""
    services = [
        {
            "name": f"{name}{family}",
            "vip": f"{VIP[family]}/{24 if family == 4 else 64}",
            "protocol": protocol,
            "ports": port,
            "carrier": "bpf",
            "decide": "python",
            "strategy": "rr",
            "backends": [backend_address(family, number) for number in (1, 2)],
        }
        for family in FAMILIES
        for name, protocol, port in (("tcp", "tcp", TCP), ("udp", "udp", UDP), ("web", "tcp", WEB))
    ]
    document = {
        "workers": {"first_core": 0, "last_core": 1},
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "network": {
            "public": {"interface": "eth0"},
            "private": {
                "interface": "eth1",
                "gateway": [f"{GATEWAY[4]}/8", f"{GATEWAY[6]}/64"],
            },
        },
        "services": services,
    }
    return yaml.safe_dump(document, sort_keys=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_checksums_are_right(world: Traps, family: int) -> None:
    """Bulk both ways and datagrams: no receiver has counted a wrong checksum."""
    with world.tcp(family) as sock, world.carrying(SIZE):
        assert upload(sock, SIZE)
        assert download(sock, SIZE) == pattern(SIZE)
    asking = world.udp(family)
    for size in (1, 2, 3, 1000):
        asking.ask(pattern(size))
    for namespace in (world.net.client, *world.net.backends):
        assert wrong_checksums(namespace) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stale_neighbour_heals(world: Traps, family: int) -> None:
    """The balancer has a wrong address of the backend that is no longer confirmed: it asks again,
    by the packets that BPF sends, and the flow goes on.
    """
    balancer = world.net.balancer
    tables = [
        f"net.ipv{family}.neigh.eth1.{key}"
        for key in ("ucast_solicit=1", "retrans_time_ms=100", "delay_first_probe_time=1")
    ]
    balancer.sysctl(*tables)
    gateway = mac(balancer, "eth1")
    for backend in world.net.backends:  # or they would ask, which tells the balancer
        backend.ip(f"neighbour replace {GATEWAY[family]} lladdr {gateway} nud permanent dev eth0")
    asking = world.udp(family)
    address = backend_address(family, int(asking.name[-1]))
    balancer.ip(f"neighbour replace {address} lladdr 02:00:00:00:00:66 nud stale dev eth1")
    asking.sock.settimeout(0.1)

    def answered() -> bool:
        try:
            return asking.ask() == asking.name
        except TimeoutError:
            return False

    with world.counting("carried", 3):
        world.until(answered, f"an answer of {address}")
    shown = balancer.run(["ip", "neighbour", "show", address, "dev", "eth1"]).stdout
    assert mac(world.net.backends[int(asking.name[-1]) - 1], "eth0") in shown


def test_others_classify_too(world: Traps) -> None:
    """A program behind ours at the same interface sees what is not carried, and not what is: ours
    again, with flows of its own, of which there are none.
    """
    asking = world.udp(4)
    maps = CarrierMaps.create_for_test()
    program = load(object_file(), PROGRAM, maps.numbers)
    with world.net.balancer.entered():
        link = syscall.attach_tcx(program, socket.if_nametoindex("eth0"))
    try:

        def seen() -> int:
            return maps.reasons.total(REASONS.index("no_flow"))[0]

        with world.counting("carried", 10):
            for _ in range(5):
                asking.ask()
        assert seen() == 0
        with opened(world.net.client, 4, socket.SOCK_DGRAM) as other, world.counting("no_flow"):
            other.connect((VIP[4], UDP))
            other.send(b"who")
            assert other.recv(100).endswith(b" who")
        assert seen() == 1
    finally:
        os.close(link)
        os.close(program)
        maps.close()


@pytest.mark.parametrize(
    ("reason", "to", "tag"),
    [
        ("other_host", "02:de:ad:00:00:01", b""),
        ("other_host", "ff:ff:ff:ff:ff:ff", b""),
        ("vlan", "", struct.pack("!HH", 0x8100, 5)),
    ],
    ids=["another host", "broadcast", "tagged"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_frames_that_are_not_ours(
    world: Traps, family: int, reason: str, to: str, tag: bytes
) -> None:
    """The addresses and ports are those of a flow, the frame is not for this host, or tagged: it
    is not carried.
    """
    asking = world.udp(family)
    ours, theirs = mac(world.net.balancer, "eth0"), mac(world.net.client, "eth0")
    head = bytes.fromhex((to or ours).replace(":", "") + theirs.replace(":", "")) + tag
    before = world.counted("carried")
    with wire(world.net.client) as sock, world.counting(reason):
        sock.send(head + datagram(family, asking.port))
    assert world.counted("carried") == before
    with wire(world.net.client) as sock, world.counting("carried", 2):  # and its answer
        plain = bytes.fromhex((ours + theirs).replace(":", ""))
        sock.send(plain + datagram(family, asking.port))


def datagram(family: int, port: int) -> bytes:
    """Type, headers and three bytes of a datagram of the client's, with a right checksum."""
    made = bytes(ip(family, CLIENT[family]) / inet.UDP(sport=port, dport=UDP) / b"who")
    return TYPES[family] + made


def ip(family: int, source: str) -> Any:
    """An IP header to the VIP."""
    return (inet.IP if family == 4 else inet6.IPv6)(src=source, dst=VIP[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_that_is_too_narrow(world: Traps, family: int) -> None:
    """Segments, also those that the kernel splits only later, that do not fit the private link
    reach the worker, whose host says Packet Too Big: the upload arrives.
    """
    with world.tcp(family) as sock:
        world.net.balancer.ip(f"link set eth1 mtu {SMALL}")
        try:
            with world.counting("too_big"):
                assert upload(sock, SIZE)
            with world.carrying(SIZE // 2):  # in shorter segments
                assert upload(sock, SIZE)
        finally:
            world.net.balancer.ip("link set eth1 mtu 1500")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_hop(world: Traps, family: int) -> None:
    """A packet whose hops end here is not carried, and its sender hears Time Exceeded; with one
    more it is.
    """
    asking = world.udp(family)
    asking.ttl(1)
    asking.sock.settimeout(AGAIN)

    def heard() -> bool:
        """Of this datagram, or one before; the kernel may omit an error, see ``unsent``."""
        try:
            asking.ask()
        except TimeoutError:
            return False
        except OSError as error:
            return error.errno == errno.EHOSTUNREACH
        raise AssertionError("answered")

    with world.counting("ttl"):
        world.until(heard, "Time Exceeded")
    asking = world.udp(family)
    asking.ttl(2)
    with world.counting("carried", 2):
        asking.ask()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["both FINs", "RST"])
def test_a_port_used_again(world: Traps, family: int, how: str) -> None:
    """A SYN from the port of a connection that has ended is a new flow, and is decided anew: the
    backends take turns.
    """
    port, names = 0, []
    with world.counting("syn", 6):
        for _ in range(6):
            # The client may wait for the backend's last ACK, and has the port until then.
            world.until(lambda at=port: not connections(world.net.client, at), "the port is free")
            with opened(world.net.client, family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((CLIENT[family], port))
                port = sock.getsockname()[1]
                sock.connect((VIP[family], WEB))
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                if how == "RST":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    names.append(_read(sock, 33)[-8:])
                    continue
                # The server closes first, so that the port is free at once.
                answer = b"".join(iter(lambda sock=sock: sock.recv(1000), b""))
                names.append(answer.strip()[-8:])
    assert len(names) == 6
    if how == "both FINs":
        assert {names[0], names[1]} == {b"backend1", b"backend2"}
        assert names == names[:2] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forged_opening(world: Traps, family: int) -> None:
    """An ACK with a number that no SYN+ACK has told proves no connection: it is not carried, and
    the flow is not established.
    """
    ours, theirs = mac(world.net.balancer, "eth0"), mac(world.net.client, "eth0")
    head = bytes.fromhex((ours + theirs).replace(":", "")) + TYPES[family]
    source = ip(family, CLIENT[family][:-3] + "66")
    syn = source / inet.TCP(sport=4242, dport=TCP, flags="S", seq=1000)
    ack = source / inet.TCP(sport=4242, dport=TCP, flags="A", seq=1001, ack=77)
    ends = b"".join(ip_address(end).packed for end in (source.src, VIP[family]))
    key = ends + struct.pack("!HH", 4242, TCP)
    with wire(world.net.client) as sock:
        with world.counting("syn"):
            sock.send(head + bytes(syn))
        world.until(lambda: key in world.flags(6, family), "an entry of the opening")
        with world.counting("opening"):
            sock.send(head + bytes(ack))
        assert not world.flags(6, family).get(key, 0) & ESTABLISHED
