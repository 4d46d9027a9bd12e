"""Long transfers end to end: every byte arrives, also while hostile packets come in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import every_io
from waiting import TIMEOUT, wait_until

from paraglider.core.packet import COPY
from paraglider.lab.topology import VIP, Topology
from paraglider.netfilter.rules.steering import worker_queues

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
SIZE = 20_000_000


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


@every_io
def test_every_byte_arrives(
    topology: Any,
    serve_peer: Any,
    config: Any,
    service: Any,
    balancer: Any,
    peer: Any,
    io: str,
) -> None:
    """Twenty megabytes up and down, both families, port-mapped: the digests agree, though of long
    packets only the heads are copied, and the kernel rewrites them.
    """
    net = topology()
    serve_peer(net, 9000)
    services = []
    for family in (4, 6):
        mapped = service(family, ports=80)
        mapped["backends"] = [{"address": a, "port": 9000} for a in mapped["backends"]]
        services.append(mapped)
    running = balancer(net, config(*services, queue={"io": io}))
    for family in (4, 6):
        for direction in ("up", "down"):
            result = peer(net.client, direction, VIP[family], 80, SIZE)
            assert result["arrived"] == result["sent"]
    assert {line[4] for line in table(net)} == {COPY}
    assert len(queues_of(running)) == 3
    assert sorted(queues(net)) == queues_of(running)
    await_verdicts(net)


@every_io
def test_hostile_packets_beside_a_transfer(
    topology: Any,
    serve_peer: Any,
    config: Any,
    service: Any,
    balancer: Any,
    peer: Any,
    io: str,
) -> None:
    """Thousands of cut, lying and random packets to the VIP: transfers end well meanwhile, no
    packet is left without a verdict, and the log has no error.
    """
    net = topology()
    serve_peer(net, 9000)
    services = [service(family, protocol="any") for family in (4, 6)]
    running = balancer(net, config(*services, workers=2, queue={"io": io}))
    mac = net.balancer.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    program = [sys.executable, str(HERE / "hostile.py"), "eth0", mac, VIP[4], VIP[6], "9000"]
    hostile = net.client.popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for family in (4, 6):
        for direction in ("up", "down"):
            result = peer(net.client, direction, VIP[family], 9000, SIZE // 4)
            assert result["arrived"] == result["sent"]
    out, _ = hostile.communicate(b"enough\n", timeout=TIMEOUT)
    assert int(out) > 2000, out
    assert len(queues_of(running)) == 6
    assert sorted(queues(net)) == queues_of(running)
    await_verdicts(net)
    for family in (4, 6):
        assert peer(net.client, "down", VIP[family], 9000, 1000)["arrived"]
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


def test_transfers_beside_each_other(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any
) -> None:
    """Twelve transfers at once over two workers: none is mixed up with another."""
    net = topology()
    serve_peer(net, 9000)
    balancer(net, config(*(service(family, ports=9000) for family in (4, 6)), workers=2))
    program = [sys.executable, str(HERE / "peer.py")]
    started = [
        net.client.popen(
            [*program, direction, VIP[family], "9000", str(500_000 + number)],
            stdout=subprocess.PIPE,
        )
        for number, (family, direction) in enumerate(
            [(family, direction) for family in (4, 6) for direction in ("up", "down")] * 3
        )
    ]
    for transfer in started:
        out, _ = transfer.communicate(timeout=60)
        result = json.loads(out)
        assert result["arrived"] == result["sent"]
