"""``forward: tunnel`` by BPF, over a router with a narrow link behind it: what is carried arrives,
and what the workers carry instead goes on.

One balancer is at work for all tests, with two workers and links that finish no checksums. Each
family has a service by IP in IP and one by GUE.
"""

from __future__ import annotations

import errno
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, opened, wrong_checksums
from directing import FAMILIES, Rounds, answers_by, configuration, working
from failing import control
from inside import InsideBalancer
from offloading import seen_by_python
from peer import UDP_SEGMENT, pattern
from services import http_service
from waiting import wait_until

from paraglider.bpf.layout import NO_ENTRIES
from paraglider.core.encapsulation import OVERHEAD
from paraglider.core.flow import TCP
from paraglider.lab.balancer import start_backend
from paraglider.lab.topology import VIP, Plan, Topology, backend_address

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
BIG = 10_000_000
NARROW = 1400
ECHO = 5353
#: the encapsulation of the services of TCP, by port and family
KINDS = {80: {4: "ipip", 6: "gue"}, 81: {4: "gue", 6: "ipip"}}
ports = pytest.mark.parametrize("port", KINDS)
families = pytest.mark.parametrize("family", FAMILIES)


def service(family: int, kind: str, **changes: Any) -> dict[str, Any]:
    """A service by BPF with the encapsulation ``kind``."""
    common = {"forward": "tunnel", "carrier": "bpf", "encapsulation": {"type": kind}}
    backends = [backend_address(family, number) for number in (1, 2)]
    return http_service(family, **common, backends=backends, drain_timeout=1, **changes)


def services(**changes: Any) -> list[dict[str, Any]]:
    """TCP at either port, and datagrams by both encapsulations."""
    tcp = [
        service(family, kind, name=f"tcp{family}-{port}", ports=port)
        for port, kinds in KINDS.items()
        for family, kind in kinds.items()
    ]
    echo = [
        service(family, kind, name=f"echo{family}", protocol="udp", ports=ECHO)
        for family, kind in KINDS[80].items()
    ]
    return [{**each, **changes} for each in tcp + echo]


class World(Carried):
    """The network, and the balancer at work in it."""

    def __init__(self, net: Topology, running: InsideBalancer) -> None:
        super().__init__(running)
        self.net = net
        self.control = control(running)

    def reload(self, **changes: Any) -> None:
        """Use the services with these changes."""
        directory = self.running.config.parent.parent
        self.running.config.write_text(configuration(directory, services(**changes)))
        self.control.post("reload", {})

    def rounds(self, directory: Path) -> list[Rounds]:
        """A connection of each family, which BPF carries."""
        made = [Rounds(self.net, family, directory / str(family)) for family in FAMILIES]
        self.go_on(made)
        return made

    def go_on(self, made: Sequence[Rounds], *, carried: bool = True) -> None:
        """Each goes on, carried by BPF or not."""
        self.until(lambda: len(self.connections()) == len(made) * carried, f"carried: {carried}")
        for each in made:
            each.await_more(self.running)

    def end(self, made: Sequence[Rounds]) -> None:
        """End them; they were complete, and no entry is left."""
        for each in made:
            each.end()
        self.until(lambda: not self.connections(), "no entry is left")

    def busy(self, service: str) -> list[str]:
        """The backends of ``service`` with live flows."""
        rows = self.control.get("backends", service=service)
        return [row["backend"] for row in rows if row["flows"]]

    def connections(self) -> set[bytes]:
        """The keys of the connections that have an entry."""
        return {key for family in FAMILIES for key in self.flags(TCP, family)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two backends with servers of TCP and UDP, set up by the operator's command."""
    directory = tmp_path_factory.mktemp("tunnels")
    plan = Plan(backends=2, direct=True, far=True, backend_mtu=NARROW)
    with Topology(plan) as net:
        net.balancer.run([sys.executable, str(HERE / "links.py"), "sums"])
        for namespace in net.namespaces:
            namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        for number, backend in enumerate(net.backends, 1):
            for port in KINDS:
                command = [sys.executable, str(HERE / "peer.py"), "serve", str(port)]
                server = backend.popen(command, stdout=subprocess.PIPE)
                assert server.stdout is not None
                assert server.stdout.readline() == b'"listening"\n'
            start_backend(backend, f"backend{number}", http=(), udp=(ECHO,))
        with working(net, directory, services()) as running:
            yield World(net, running)


@ports
@families
def test_long_transfers(world: World, peer: Any, port: int, family: int) -> None:
    """Ten megabytes arrive complete in each direction, carried by the program, whose checksums are
    right. The client learns what fits inside the tunnel from a worker. No answer passes here.
    """
    answered = answers_by(world.net)
    with world.carrying(BIG // 2):
        for direction in ("down", "up"):
            result = peer(world.net.client, direction, VIP[family], port, BIG)
            assert result["sent"] == result["arrived"]
    assert answers_by(world.net) - answered < BIG // 100  # errors have 576 bytes
    room = NARROW - OVERHEAD[family][KINDS[port][family] == "gue"]
    shown = world.net.client.run(["ip", "route", "get", VIP[family]]).stdout
    found = re.search(r"\bmtu (\d+)\b", shown)
    assert found is not None, shown
    assert int(found[1]) <= room
    assert [wrong_checksums(backend) for backend in world.net.backends] == [0, 0]


def received(sock: socket.socket) -> bytes:
    """The next datagram; each worker tells an IPv6 client once that one was too long."""
    while True:
        try:
            return sock.recv(1 << 16)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise


@families
def test_datagrams(world: World, family: int) -> None:
    """Short ones are carried, and several in one call (UDP_SEGMENT) are split behind the outer
    header; those that do not fit go through a worker. All checksums are right.
    """
    with opened(world.net.client, family, socket.SOCK_DGRAM) as sock:
        sock.connect((VIP[family], ECHO))

        def echoes(data: bytes, size: int) -> None:
            """Send ``data`` in datagrams of ``size`` bytes, by one call, and get them back."""
            segment = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))
            sock.sendmsg([data], [segment] if len(data) > size else [])
            found = [received(sock).partition(b" ")[2] for _ in range(0, len(data), size)]
            assert sorted(found) == sorted(data[at : at + size] for at in range(0, len(data), size))

        for size in (3, 2):  # a worker decides with the first, and installs with the second
            echoes(pattern(size), size)
        for size in (1, 1000):
            with world.counting("carried"):
                echoes(pattern(size), size)
        with world.counting("carried"):
            echoes(pattern(6100), 600)
        for size in (3000, 20000):
            with world.counting("fragment"):
                echoes(pattern(size), size)
    assert [wrong_checksums(backend) for backend in world.net.backends] == [0, 0]


def test_connections_go_on(world: World, tmp_path: Path) -> None:
    """While BPF is switched off and on, while the file gives their service to the workers and back
    and changes the encapsulation, and while the daemon is away after kill -9.
    """
    made = world.rounds(tmp_path)
    for position, carried in (("off", False), ("on", True)):
        world.control.post("carrier", {"state": position})
        world.go_on(made, carried=carried)
    for carrier, carried in (("worker", False), ("bpf", True)):
        world.reload(carrier=carrier)
        world.go_on(made, carried=carried)
    world.running.stop(signal.SIGKILL)
    for each in made:
        each.await_more(world.running)
    world.running.start()
    world.go_on(made)
    world.end(made)


def test_by_a_hash_no_packet_has_a_flow(world: World, peer: Any) -> None:
    """No packet of a connection passes a worker, and none gets an entry; flows that a worker had
    before may have one.
    """
    world.reload(decide="hash", strategy="maglev")
    world.decide(len(services()), NO_ENTRIES)

    def uploads(size: int) -> None:
        for port in KINDS:
            for family in FAMILIES:
                result = peer(world.net.client, "up", VIP[family], port, size)
                assert result["sent"] == result["arrived"]

    try:
        uploads(100_000)  # the client learns the MTU
        before, entries = seen_by_python(world.net), world.connections()
        with world.counting("stateless"):
            uploads(BIG)
        assert seen_by_python(world.net) == before
        assert world.connections() <= entries
    finally:
        world.reload()


def test_a_path_that_becomes_narrower(world: World, tmp_path: Path) -> None:
    """The router's error about an outer packet of the program reaches the kernel, by whose MTU the
    program leaves packets to a worker, which tells the client.
    """
    gate = world.net.gate
    assert gate is not None
    made = world.rounds(tmp_path)
    with world.counting("too_big"):
        gate.ip("link set eth1 mtu 1360")
        for each in made:
            each.await_more(world.running)
    shown = [world.net.client.run(["ip", "route", "get", VIP[f]]).stdout for f in FAMILIES]
    rooms = [1360 - OVERHEAD[family][KINDS[80][family] == "gue"] for family in FAMILIES]
    assert [re.findall(r"\bmtu (\d+)\b", text) for text in shown] == [[str(r)] for r in rooms]
    world.go_on(made)
    world.end(made)


def test_flows_end(world: World, tmp_path: Path) -> None:
    """Those that the operator kills, and those of a backend that has drained."""
    for end in ("kill", "drain"):
        for family in FAMILIES:  # or the backend of a flow that has ended would be drained
            name = f"tcp{family}-80"
            world.until(lambda name=name: not world.busy(name), "no busy backend")
        made = world.rounds(tmp_path)
        for family in FAMILIES:
            name = f"tcp{family}-80"
            if end == "kill":
                assert world.control.post("flows/kill", {"service": name})["killed"] >= 1
                continue
            (backend,) = wait_until(partial(world.busy, name), world.running.log)
            world.control.set_backend(name, backend, state="drain")
        for each in made:
            assert each.await_end() == {"error": "ECONNRESET"}
        for family in FAMILIES if end == "drain" else ():
            name = f"tcp{family}-80"
            for row in world.control.get("backends", service=name):
                world.control.set_backend(name, row["backend"], state="ready")
    world.until(lambda: not world.connections(), "no flow is carried")
