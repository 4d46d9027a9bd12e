"""The effect of the set-up's rules on real packets, recorded by a reader in place of workers.

The reader binds both queues of both workers and records every packet: the queue, the hook, the
head. So no balancer is needed to see that a flow, its replies and its ICMP errors reach one worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inside import InsideBalancer
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.packet import Packet
from unsent import pinged
from waiting import wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import BALANCER, CLIENT, VIP, Topology, backend_address
from paraglider.netfilter.rules.steering import OPENINGS, worker_queues

pytestmark = pytest.mark.root

READER = """\
import json, select, sys
from netfilterqueue import COPY_PACKET, NetfilterQueue

accept, numbers = sys.argv[1] == "accept", [int(text) for text in sys.argv[2:]]
queues = {}
for number in numbers:
    def seen(packet, number=number):
        head = packet.get_payload().hex()
        print(json.dumps([number, packet.hook, packet.get_mark(), head]), flush=True)
        packet.accept() if accept else packet.drop()
    queue = NetfilterQueue()
    queue.bind(number, seen, 1024, COPY_PACKET, 1024)
    queues[queue.get_fd()] = queue
print("ready", flush=True)
while True:
    for fd in select.select(list(queues), [], [])[0]:
        queues[fd].run(block=False)
"""

SENDER = """\
import socket, sys

raw = {4: socket.AF_INET, 6: socket.AF_INET6}
for line in sys.stdin:
    family, address, packet = line.split()
    with socket.socket(raw[int(family)], socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.sendto(bytes.fromhex(packet), (address, 0))
"""

PRE, FORWARD, OUT = 0, 2, 3  # NF_INET_* (linux/netfilter.h)
PORTS = range(40000, 40032)
PORT = 53


class Reader:
    """The replacement of the workers; its records are in a file."""

    def __init__(self, namespace: Namespace, file: Path, verdict: str, cores: list[int]) -> None:
        self._file = file
        queues = [str(number) for core in cores for number in worker_queues(core)]
        command = [sys.executable, "-c", READER, verdict, *queues]
        with file.open("wb") as output:
            self._process = namespace.popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.lines(1)

    def lines(self, count: int) -> list[str]:
        """The first ``count`` lines, as soon as they are there."""

        def found() -> list[str]:
            # Only whole lines: of the one that is being written there may be a part.
            lines = self._file.read_text().rpartition("\n")[0].splitlines()
            assert len(lines) >= count or self._process.poll() is None, lines
            return lines

        wait_until(lambda: len(found()) >= count, found)
        return found()

    def packets(self, count: int) -> list[tuple[int, int, int, bytes]]:
        """(queue, hook, mark, head) of exactly ``count`` packets."""
        lines = [json.loads(line) for line in self.lines(count + 1)[1:]]
        assert len(lines) == count
        return [(queue, hook, mark, bytes.fromhex(head)) for queue, hook, mark, head in lines]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Reader]:
    """A factory of readers; they end with the namespace."""

    def make(net: Topology, verdict: str = "drop", cores: tuple[int, ...] = (0, 1)) -> Reader:
        return Reader(net.balancer, tmp_path / "seen", verdict, list(cores))

    return make


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Callable[[Topology, str], LabBalancer]]:
    """A function that runs the real set-up; it is undone afterwards."""
    made: list[LabBalancer] = []

    def run(net: Topology, text: str) -> LabBalancer:
        made.append(InsideBalancer(net.balancer, tmp_path, text))
        made[-1].set_up()
        return made[-1]

    yield run
    for balancer in made:
        balancer.undo()


def service(family: int, **changes: Any) -> dict[str, Any]:
    """A service for everything on the VIP of ``family``."""
    prefix = 24 if family == 4 else 64
    backends = [backend_address(family, number) for number in (1, 2, 3)]
    base = {"name": f"any{family}", "vip": f"{VIP[family]}/{prefix}", "protocol": "any"}
    return {**base, "ports": PORT, "backends": backends, **changes}


def send(namespace: Namespace, *packets: Packet) -> None:
    """Send packets as they are, by a raw socket, so that they pass the sender's own output."""
    lines = [f"{p.version} {p.dst} {bytes(p).hex()}\n" for p in packets]
    namespace.run([sys.executable, "-c", SENDER], text="".join(lines))


def error(family: int, source: str, target: str, inner: Packet) -> Packet:
    """An ICMP error about ``inner``: fragmentation needed, or packet too big."""
    if family == 4:
        return IP(src=source, dst=target) / ICMP(type=3, code=4, nexthopmtu=1400) / inner
    return IPv6(src=source, dst=target) / ICMPv6PacketTooBig(mtu=1400) / inner


def unreachable(family: int, source: str, target: str, inner: Packet) -> Packet:
    """An ICMP error about ``inner``: port unreachable."""
    if family == 4:
        return IP(src=source, dst=target) / ICMP(type=3, code=3) / inner
    return IPv6(src=source, dst=target) / ICMPv6DestUnreach(code=4) / inner


def parsed(head: bytes) -> Packet:
    """The packet of which this is the head."""
    return IP(head) if head[0] >> 4 == 4 else IPv6(head)


def client_port(packet: Packet) -> int:
    """The client's port, also in the inner packet of an ICMP error."""
    layer = packet.getlayer(UDP, _subclass=True) or packet.getlayer(TCP, _subclass=True)
    (port,) = {layer.sport, layer.dport} - {PORT}
    return int(port)


def send_everything(net: Topology, family: int, protocol: type[Packet]) -> int:
    """For every port: a request, a reply, and an error from each possible sender. Returns the
    number of packets that workers must get.
    """
    ip = IP if family == 4 else IPv6
    client, vip, backend = CLIENT[family], VIP[family], backend_address(family, 2)
    there = [ip(src=client, dst=vip) / protocol(sport=p, dport=PORT) for p in PORTS]
    back = [ip(src=backend, dst=client) / protocol(sport=PORT, dport=p) for p in PORTS]
    rewritten = [ip(src=client, dst=backend) / protocol(sport=p, dport=PORT) for p in PORTS]
    answered = [ip(src=vip, dst=client) / protocol(sport=PORT, dport=p) for p in PORTS]
    send(net.client, *there, *(error(family, client, vip, inner) for inner in answered))
    errors = [unreachable(family, backend, client, inner) for inner in rewritten]
    send(net.backends[1], *back, *errors)
    send(net.balancer, *(error(family, BALANCER[family], client, inner) for inner in rewritten))
    return 5 * len(PORTS)


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("family", [4, 6])
def test_both_directions_and_their_errors_reach_one_worker(
    topology: Any, config: Any, set_up: Any, read: Any, family: int, protocol: type[Packet]
) -> None:
    """Request, reply, and ICMP errors from client, backend and balancer reach one worker per flow.
    Packets that open a flow wait in that worker's queue of openings, no others do.
    """
    net = topology()
    set_up(net, config(service(family), workers=2))
    reader = read(net)
    count = send_everything(net, family, protocol)
    workers = defaultdict(set)
    kinds = defaultdict(set)
    opening = set()
    for queue, hook, mark, head in reader.packets(count):
        packet = parsed(head)
        port = client_port(packet)
        kind = (hook, protocol in packet)
        workers[port].add(queue % OPENINGS)
        kinds[port].add(kind)
        if queue >= OPENINGS:
            opening.add(kind)
        elif protocol is TCP:
            assert kind != (PRE, True)
        assert mark >> 16 == 0x5047
    wanted = {(PRE, True), (FORWARD, True), (PRE, False), (FORWARD, False), (OUT, False)}
    assert set(kinds) == set(PORTS)
    assert all(found == wanted for found in kinds.values())
    assert opening == {(PRE, True)}
    assert all(len(found) == 1 for found in workers.values())
    assert set.union(*workers.values()) == {0, 1}


@pytest.mark.parametrize("family", [4, 6])
def test_with_affinity_a_client_reaches_one_worker(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """All flows of a client, with any ports, because only that worker has its affinity."""
    net = topology()
    set_up(net, config(service(family, affinity="client"), workers=2))
    reader = read(net)
    packets = reader.packets(send_everything(net, family, UDP))
    assert len({queue % OPENINGS for queue, *_ in packets}) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_echo_and_its_errors_reach_one_worker(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """Echo has no ports: request, reply and an error about the reply go by the client's address."""
    net = topology()
    set_up(net, config(service(family), workers=2))
    reader = read(net)
    ip = IP if family == 4 else IPv6
    ask, answer = (
        (ICMP(type=8, id=7), ICMP(type=0, id=7))
        if family == 4
        else (ICMPv6EchoRequest(id=7), ICMPv6EchoReply(id=7))
    )
    client, vip, backend = CLIENT[family], VIP[family], backend_address(family, 1)
    send(
        net.client,
        ip(src=client, dst=vip) / ask,
        error(family, client, vip, ip(src=vip, dst=client) / answer),
    )
    send(net.backends[0], ip(src=backend, dst=client) / answer)
    packets = reader.packets(3)
    assert len({queue % OPENINGS for queue, *_ in packets}) == 1
    assert sorted(hook for _, hook, *_ in packets) == [PRE, PRE, FORWARD]
    (request,) = (parsed(head) for queue, *_, head in packets if queue >= OPENINGS)
    assert (request.src, request.dst, type(request.payload)) == (client, vip, type(ask))


DATAGRAM = """\
import socket, sys
family, source, target, sport, dport = sys.argv[1:]
family = {"4": socket.AF_INET, "6": socket.AF_INET6}[family]
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.bind((source, int(sport)))
    sender.sendto(b"x" * 8000, (target, int(dport)))
"""


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_are_reassembled_before_they_reach_a_worker(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """A datagram of 8,000 bytes is one packet in the queue, there and back, without conntrack."""
    net = topology()
    set_up(net, config(service(family), workers=2))
    reader = read(net)
    client, backend = CLIENT[family], backend_address(family, 1)
    command = [sys.executable, "-c", DATAGRAM, str(family)]
    net.client.run([*command, client, VIP[family], "40000", str(PORT)])
    net.backends[0].run([*command, backend, client, str(PORT), "40000"])
    packets = reader.packets(2)
    for _, _, _, head in packets:
        length = int.from_bytes(head[2:4] if family == 4 else head[4:6], "big")
        assert length == (20 + 8 + 8000 if family == 4 else 8 + 8000)
        assert parsed(head)[UDP].len == 8 + 8000
    assert {hook for _, hook, *_ in packets} == {PRE, FORWARD}
    assert len({queue % OPENINGS for queue, *_ in packets}) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_balanced_traffic_is_not_tracked(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """Also if the host's own rules use conntrack; other traffic is tracked there."""
    net = topology()
    set_up(net, config(service(family), workers=2))
    tables = "iptables" if family == 4 else "ip6tables"
    net.balancer.run([tables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"])
    reader = read(net, "accept")
    reader.packets(0)
    send_everything(net, family, UDP)
    count = ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
    reader.lines(5 * len(PORTS) + 1)
    assert net.balancer.run(count).stdout == "0\n"
    pinged(net.client, BALANCER[family])
    assert net.balancer.run(count).stdout != "0\n"


ANSWER = """\
import socket, sys
family, address = sys.argv[1:]
with socket.socket({"4": socket.AF_INET, "6": socket.AF_INET6}[family], socket.SOCK_DGRAM) as s:
    s.bind((address, 40000))
    print("bound", flush=True)
    while True:
        print(s.recv(100).decode(), flush=True)
"""


@pytest.mark.parametrize("family", [4, 6])
def test_balanced_packets_pass_a_firewall_that_drops(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """A policy of DROP on FORWARD applies to everything except packets that a worker accepted."""
    net = topology()
    net.balancer.run(["iptables" if family == 4 else "ip6tables", "-P", "FORWARD", "DROP"])
    set_up(net, config(service(family), workers=2))
    read(net, "accept")
    client, backend = CLIENT[family], backend_address(family, 1)
    listener = net.client.popen(
        [sys.executable, "-c", ANSWER, str(family), client], stdout=subprocess.PIPE
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"bound\n"
    ip = IP if family == 4 else IPv6
    packets = [
        ip(src=backend, dst=client) / UDP(sport=port, dport=40000) / word
        for port, word in ((9999, b"stranger"), (PORT, b"ours"))
    ]
    send(net.backends[0], *packets)
    assert listener.stdout.readline() == b"ours\n"


@pytest.mark.parametrize("family", [4, 6])
def test_errors_that_are_none_of_ours_pass_without_a_worker(
    topology: Any, config: Any, set_up: Any, family: int
) -> None:
    """The host may route for others: their ICMP errors go through while no worker runs."""
    net = topology()
    set_up(net, config(service(family), workers=2))
    backend = backend_address(family, 1)
    tables = "iptables" if family == 4 else "ip6tables"
    icmp = "icmp" if family == 4 else "ipv6-icmp"
    option, kind = ("--icmp-type", "3") if family == 4 else ("--icmpv6-type", "1")
    net.client.run([tables, "-A", "INPUT", "-p", icmp, option, kind, "-j", "ACCEPT"])
    ip = IP if family == 4 else IPv6
    inner = ip(src=CLIENT[family], dst=backend) / UDP(sport=40000, dport=9999)
    send(net.backends[0], unreachable(family, backend, CLIENT[family], inner))

    def counted() -> str:
        saved = net.client.run([f"{tables}-save", "-c"]).stdout
        (rule,) = (line for line in saved.splitlines() if line.endswith("-j ACCEPT"))
        return rule

    wait_until(lambda: counted().startswith("[1:"), counted)


@pytest.mark.parametrize("family", [4, 6])
def test_the_host_may_call_its_own_vip(
    topology: Any, config: Any, set_up: Any, family: int
) -> None:
    """Packets of the host to itself are not queued; otherwise a ping would be lost without a
    worker.
    """
    net = topology()
    set_up(net, config(service(family), workers=2))
    pinged(net.balancer, VIP[family])


@pytest.mark.parametrize("family", [4, 6])
def test_exempt_endpoints_are_not_queued(
    topology: Any, config: Any, set_up: Any, read: Any, family: int
) -> None:
    """Packets from and to an exempt endpoint are not queued, while those of its neighbour are."""
    net = topology(clients=2)
    exempt = net.client_address(family, 1)
    text = config(service(family), workers=2)
    set_up(net, text.replace("network:\n", f"network:\n  exempt: ['{exempt}']\n"))
    reader = read(net)
    ip = IP if family == 4 else IPv6
    vip, backend = VIP[family], backend_address(family, 1)
    for client in (exempt, net.client_address(family, 0)):
        send(net.client, ip(src=client, dst=vip) / UDP(sport=40000, dport=PORT))
        send(net.backends[0], ip(src=backend, dst=client) / UDP(sport=PORT, dport=40000))
    seen = {
        address
        for *_, head in reader.packets(2)
        for address in (parsed(head).src, parsed(head).dst)
    }
    assert exempt not in seen
