"""Segments of BIG TCP, longer than 64 KiB: bulk arrives whole by every way of forwarding."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import directing
import pytest
from inside import InsideStaticBalancer
from waiting import TIMEOUT

from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

LINKS = Path(__file__).parent / "links.py"
SIZE = 185_000
BYTES = 3_000_000
PORT = 9000


@pytest.mark.parametrize(
    ("ways", "io", "carrier"),
    [
        ("nat offload proxy", "netlink", "bpf"),
        ("nat", "netlink", "worker"),
        # Each segment is a packet in its queue, which BPF's fast acknowledgments would fill.
        ("nat", "netfilterqueue", "worker"),
        ("dsr", "auto", ""),
        ("static", "", ""),
    ],
    indirect=["carrier"],
)
def test_bulk(
    topology: Any,
    serve_peer: Any,
    config: Any,
    service: Any,
    balancer: Any,
    peer: Any,
    start: Any,
    ways: str,
    io: str,
) -> None:
    """Three megabytes up and down, both families: whole, and in segments that no queue carries."""
    net = directing.directed(topology) if ways == "dsr" else topology()
    for namespace in net.namespaces:
        namespace.run([sys.executable, str(LINKS), "big", str(SIZE)])
    ports = dict(enumerate(ways.split(), PORT))
    services = []
    for port, way in ports.items():
        serve_peer(net, port)
        forward = "offload" if way == "static" else way
        services += [
            service(family, name=f"{way}{family}", ports=port, forward=forward) for family in (4, 6)
        ]
    if ways == "static":
        start(net, config(*services))
    else:
        balancer(net, config(*services, queue={"io": io}))
    for port, way in ports.items():
        for family in (4, 6):
            for direction, device in (("up", "eth0"), ("down", "eth1")):
                if way == "dsr" and direction == "down":
                    continue  # answers do not pass the balancer
                # Beside a busy process a transfer may have only shorter segments, by its window.
                longest, until = 0, time.monotonic() + 3 * TIMEOUT
                while longest <= 1 << 16:
                    assert time.monotonic() < until, (way, family, direction, longest)
                    with Watched(net, device) as watched:
                        result = peer(net.client, direction, VIP[family], port, BYTES)
                    assert result["sent"] == result["arrived"], (way, family, direction)
                    longest = watched.longest


@pytest.fixture
def start(topology: Any, tmp_path: Path) -> Iterator[Any]:
    """A function that starts a configuration in the kernel alone; stopped afterwards."""
    made: list[InsideStaticBalancer] = []

    def begin(net: Topology, text: str) -> None:
        directory = tmp_path / "static"
        directory.mkdir()
        made.append(InsideStaticBalancer(net.balancer, directory, text))
        made[-1].set_up()

    yield begin
    for static in made:
        static.undo()


class Watched:
    """The longest packet that came in by ``device`` of the balancer meanwhile."""

    def __init__(self, net: Topology, device: str) -> None:
        command = [sys.executable, str(LINKS), "longest", device]
        self._process = net.balancer.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.longest = 0

    def __enter__(self) -> Watched:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"watching\n"
        return self

    def __exit__(self, *_: object) -> None:
        said, _ = self._process.communicate(timeout=TIMEOUT)
        self.longest = int(said)
