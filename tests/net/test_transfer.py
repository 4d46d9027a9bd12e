"""Long transfers end to end: every byte arrives, also while hostile packets come in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from services import http_service
from sharing import Shared, vip
from waiting import TIMEOUT, wait_until

from paraglider.core.packet import COPY
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import PUBLIC_PREFIX, VIP, Topology
from paraglider.netfilter.queue import QUEUES
from paraglider.netfilter.rules.steering import worker_queues

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
PORT = 9000
HERE = Path(__file__).parent
SIZE = 8_000_000


def table(net: Topology) -> list[list[int]]:
    """The kernel's table of queues."""
    text = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def queues(net: Topology) -> dict[int, tuple[int, int]]:
    """By queue: the number of waiting packets, and of dropped ones."""
    return {line[0]: (line[2], line[5] + line[6]) for line in table(net)}


def await_verdicts(net: Topology) -> None:
    """Wait until no packet waits; fail when one is left without a verdict."""
    wait_until(lambda: not any(waiting for waiting, _ in queues(net).values()), lambda: queues(net))


class World:
    """The network, and a balancer with one queue I/O and carrier."""

    def __init__(self, shared: Shared, io: str, carrier: str) -> None:
        self.shared = shared
        self.net = shared.net
        self._io = io
        self._carrier = carrier

    def working(self) -> LabBalancer:
        """The balancer: HTTP's port of the first VIP is mapped, the second has all ports."""
        services = []
        for family in FAMILIES:
            made = http_service(family, carrier=self._carrier)
            mapped = [{"address": address, "port": PORT} for address in made["backends"]]
            second = f"{vip(family, 2)}/{PUBLIC_PREFIX[family]}"
            rest = {"name": f"any{family}", "vip": second, "protocol": "any"}
            everything = http_service(family, carrier=self._carrier, **rest)
            del everything["ports"]
            services += [made | {"backends": mapped}, everything]
        text = self.shared.config(*services, workers=2, queue={"io": self._io})
        return self.shared.balancer(text)


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing()
    made.serve_peer(PORT)
    return made


@pytest.fixture(scope="module")
def world(shared: Shared, request: pytest.FixtureRequest) -> World:
    """The network, with the queue I/O and the carrier of a mark."""
    return World(shared, *request.param)


#: each queue I/O with the workers' carrying, and the first with BPF's; what shares a balancer
#: comes together
every_io = pytest.mark.parametrize(
    "world",
    [*((io, "worker") for io in QUEUES), (next(iter(QUEUES)), "bpf")],
    ids="-".join,
    indirect=True,
    scope="module",
)
default = pytest.mark.parametrize(
    "world", [(next(iter(QUEUES)), "bpf")], ids="-".join, indirect=True, scope="module"
)


@every_io
def test_every_byte_arrives(world: World, peer: Any) -> None:
    """Eight megabytes up and down, both families, port-mapped: the digests agree, though of long
    packets only the heads are copied, and the kernel rewrites them.
    """
    running, net = world.working(), world.net
    for family in FAMILIES:
        for direction in ("up", "down"):
            result = peer(net.client, direction, VIP[family], 80, SIZE)
            assert result["arrived"] == result["sent"]
    assert {line[4] for line in table(net)} == {COPY}
    assert len(queues_of(running)) == 6
    assert sorted(queues(net)) == queues_of(running)
    await_verdicts(net)


@default
def test_transfers_beside_each_other(world: World) -> None:
    """Twelve transfers at once over two workers: none is mixed up with another."""
    world.working()
    program = [sys.executable, str(HERE / "peer.py")]
    started = [
        world.net.client.popen(
            [*program, direction, VIP[family], "80", str(500_000 + number)],
            stdout=subprocess.PIPE,
        )
        for number, (family, direction) in enumerate(
            [(family, direction) for family in FAMILIES for direction in ("up", "down")] * 3
        )
    ]
    for transfer in started:
        out, _ = transfer.communicate(timeout=TIMEOUT)
        result = json.loads(out)
        assert result["arrived"] == result["sent"]


@every_io
def test_hostile_packets_beside_a_transfer(world: World, peer: Any) -> None:
    """Thousands of cut, lying and random packets to the VIP: transfers end well meanwhile, no
    packet is left without a verdict, and the log has no error.
    """
    running, net = world.working(), world.net
    vips = {family: vip(family, 2) for family in FAMILIES}
    mac = net.balancer.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    program = [sys.executable, str(HERE / "hostile.py"), "eth0", mac, *vips.values(), str(PORT)]
    hostile = net.client.popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for address in vips.values():
        for direction in ("up", "down"):
            result = peer(net.client, direction, address, PORT, SIZE // 4)
            assert result["arrived"] == result["sent"]
    out, _ = hostile.communicate(b"enough\n", timeout=TIMEOUT)
    assert int(out) > 2000, out
    assert len(queues_of(running)) == 6
    assert sorted(queues(net)) == queues_of(running)
    await_verdicts(net)
    for address in vips.values():
        assert peer(net.client, "down", address, PORT, 1000)["arrived"]
    assert running.stop() == 0
    counted = " ".join(line for line in running.log().splitlines() if "event=stopped" in line)
    for reason in ("no_flow=", "short_transport=", "short_error=", "bad_extension="):
        assert reason in counted, counted
    assert "internal=" not in counted
    assert running.trouble() == []


def queues_of(running: Any) -> list[int]:
    """The queues of the workers in the log: three each, since there are no tunnels."""
    words = [line.split() for line in running.log().splitlines() if '"worker ready"' in line]
    cores = [int(w.removeprefix("core=")) for line in words for w in line if w.startswith("core=")]
    return sorted(queue for core in cores for queue in worker_queues(core)[:3])
