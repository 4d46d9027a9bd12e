"""Conntrack and balanced connections (``forward: offload``, ``start``): timeouts, and segments
that it calls invalid.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import forging
import pytest
from waiting import wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import CLIENT, VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
FORGING = Path(__file__).parent / "forging.py"
FAR = 100_000_000  # behind every window
SECONDS = {"syn": 200, "established": 3000, "udp": 150}


class Talk:
    """A running ``forging.py`` in the client, with a connection."""

    def __init__(self, net: Topology, verb: str, family: int) -> None:
        command = [sys.executable, str(FORGING), verb, VIP[family], "9000"]
        self._process = net.client.popen(command, stdin=-1, stdout=-1)
        self.numbers = self._line()

    def again(self) -> Any:
        """The result of one more use of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class World:
    """The lab with a running balancer."""

    def __init__(self, net: Topology, running: LabBalancer) -> None:
        self.net = net
        self.running = running
        self._macs = {
            side: net.balancer.run(["cat", f"/sys/class/net/{side}/address"]).stdout.strip()
            for side in ("eth0", "eth1")
        }

    def mac(self, where: Namespace) -> str:
        """The address of the balancer's interface towards ``where``."""
        return self._macs["eth0" if where is self.net.client else "eth1"]

    def dropped(self, family: int) -> int:
        """Segments dropped as invalid."""
        name = "ip" if family == 4 else "ip6"
        text = self.net.balancer.run(["nft", "list", "counter", name, "paraglider", "invalid"])
        return int(re.findall(r"packets (\d+)", text.stdout)[0])

    def entries(self, *parts: str) -> list[str]:
        """Conntrack's entries with all ``parts``."""
        lines = self.net.balancer.run(["cat", "/proc/net/nf_conntrack"]).stdout.splitlines()
        return [line for line in lines if all(part in line for part in parts)]


@pytest.fixture(params=["offload", "static"])
def world(
    request: Any, topology: Any, serve: Any, serve_peer: Any, config: Any, service: Any
) -> World:
    """TCP and UDP to the first backend, in both families."""
    net = topology()
    serve(net, http=())
    serve_peer(net, 9000)
    services = []
    for family in FAMILIES:
        one = service(family, forward="offload", ports=9000, backends=1)
        echo = {**one, "name": f"echo{family}", "protocol": "udp", "ports": 5353}
        backends = [{"address": backend_address(family, 1), "port": 5353}]
        dns = {**echo, "name": f"dns{family}", "ports": 53, "backends": backends}
        services += [one, echo, dns]
    text = config(*services, timeouts=SECONDS)
    start = request.getfixturevalue("start" if request.param == "static" else "balancer")
    return World(net, start(net, text))


def test_what_conntrack_makes_of_it(world: World, peer: Any) -> None:
    """Forged segments outside the window reach neither end, and the connection continues. Segments
    of no connection are answered with RST. A half-closed connection has the timeout of an
    established one, a datagram's that of the file.
    """
    for family in FAMILIES:
        invalid_segments(world, family)
        segments_of_no_connection(world, family)
        timeouts(world, peer, family)


def timeouts(world: World, peer: Any, family: int) -> None:
    """Those of a half-closed connection and of an answered datagram."""
    half = Talk(world.net, "half", family)
    assert peer(world.net.client, "udp", VIP[family], 5353, 10)["whole"]
    port = f"sport={half.numbers['port']} "
    # Until the FIN is acknowledged the kernel allows 300 s (TCP_CONNTRACK_UNACK).
    wait_until(
        lambda: any(seconds(entry) > 300 for entry in world.entries(port, "_WAIT")),
        world.running.log,
    )
    (closing,) = world.entries(port, "tcp ")
    assert "TIME_WAIT" not in closing
    assert 2000 < seconds(closing) <= 3000
    (datagrams,) = world.entries("udp ", "dport=5353 ", f"ipv{family} ")
    assert 90 < seconds(datagrams) <= 150
    assert peer(world.net.client, "udp", VIP[family], 53, 10)["whole"]
    assert all(seconds(entry) <= 10 for entry in world.entries("udp ", "dport=53 "))


def invalid_segments(world: World, family: int) -> None:
    """From the client and from the backend, of every kind."""
    talks = [Talk(world.net, "hold", family) for _ in range(2)]
    before = world.dropped(family)
    flags = "PA A FA R RA"
    one, other = (talk.numbers for talk in talks)
    client, backend = world.net.client, world.net.backends[0]
    ends: tuple[Any, ...] = (CLIENT[family], one["port"], VIP[family], 9000)
    numbers = ((one["seq"] + FAR) % 2**32, one["ack"])
    forging.send(client, world.mac(client), ends, numbers, flags)
    ends = (backend_address(family, 1), 9000, CLIENT[family], other["port"])
    numbers = ((other["ack"] + FAR) % 2**32, other["seq"])
    forging.send(backend, world.mac(backend), ends, numbers, flags)
    wait_until(lambda: world.dropped(family) >= before + 2 * len(flags.split()), world.running.log)
    assert [talk.again() for talk in talks] == [{"arrived": 3}] * 2


def segments_of_no_connection(world: World, family: int) -> None:
    """A FIN is answered when it comes again; conntrack forgets all of them soon."""
    client, answers = world.net.client, []
    for port, flags in enumerate(("A", "PA", "FA"), 20_001):  # none that the kernel gives a socket
        ends = (CLIENT[family], port, VIP[family], 9000)
        answers.append(forging.ask(client, world.mac(client), ends, flags))
    assert [(answer["flags"], answer["seq"]) for answer in answers] == [("R", 2000)] * 3
    assert answers[2]["tries"] > 1
    wait_until(lambda: not world.entries("sport=2000"), world.running.log)


def seconds(entry: str) -> int:
    """How long conntrack will keep an entry."""
    return int(entry.split()[4])
