"""The life of the BPF carrier: flows go on while no daemon is there, and nothing of it is left."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, programs_at
from clients import Client, await_rounds
from failing import control
from waiting import wait_until

from paraglider.host.bpffs import PINS
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

SIZE = 20_000


def pins(net: Topology) -> Path:
    """The directory of the balancer's pins."""
    command = "from paraglider.host.ownership import netns_cookie; print(f'{netns_cookie():x}')"
    return PINS / net.balancer.run([sys.executable, "-c", command]).stdout.strip()


def test_flows_need_no_daemon(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Established connections go on while the daemon is killed, stopped and away; the next one has
    them, switches them off and on, and follows the interfaces; undoing leaves no pin.
    """
    net = topology()
    serve_peer(net, 9000)
    services = [
        service(family, name=f"tcp{family}", ports=9000, carrier="bpf") for family in (4, 6)
    ]
    running = balancer(net, config(*services, workers=2), trouble=True)
    place = pins(net)
    assert programs(net) == [1, 1]
    assert sum(path.name.startswith("link-") for path in place.iterdir()) == 2
    busy = [
        Client(net.client, tmp_path / f"client{family}{n}", "rounds", VIP[family], 9000, SIZE)
        for family in (4, 6)
        for n in range(2)
    ]
    await_rounds(busy, running)
    wait_until(lambda: control(running).get("carrier")["flows"] == 4, running.log)

    for how in (signal.SIGKILL, signal.SIGTERM):
        running.stop(how)
        wait_until(lambda: not queues(net), running.log)
        await_rounds(busy, running)  # nobody but the program is there
        running.start()
        await_rounds(busy, running)
        wait_until(lambda: control(running).get("carrier")["flows"] == 4, running.log)

    switch(running, "off")
    assert programs(net) == [0, 0]
    await_rounds(busy, running)
    wait_until(lambda: control(running).get("carrier")["flows"] == 0, running.log)
    switch(running, "on")
    await_rounds(busy, running)
    wait_until(lambda: control(running).get("carrier")["flows"] == 4, running.log)

    net.balancer.ip("link add late type veth peer name later", "link set late up")
    wait_until(lambda: "late" in control(running).get("carrier")["devices"], running.log)
    net.balancer.ip("link del late")
    wait_until(lambda: "late" not in control(running).get("carrier")["devices"], running.log)

    assert [each.end().startswith('{"rounds": ') for each in busy] == [True] * 4
    running.stop()
    assert place.exists()
    running.undo()
    assert not place.exists()
    assert programs(net) == [0, 0]


def test_another_number_of_workers(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """After a restart with fewer workers, and with more again, each flow is restored by one worker,
    and has one entry, which one of these workers owns: connections go on, end, and leave none.
    """
    net = topology()
    serve_peer(net, 9000)
    services = [service(family, ports=9000, carrier="bpf") for family in (4, 6)]

    def file(count: int) -> str:
        text: str = config(*services, workers=count, flows={"max": 10_000})
        return text

    running = balancer(net, file(2), trouble=True)
    busy = [
        Client(net.client, tmp_path / f"client{family}{n}", "rounds", VIP[family], 9000, SIZE)
        for family in (4, 6)
        for n in range(4)
    ]
    await_rounds(busy, running)
    for count in (1, 2):
        running.stop()
        running.config.write_text(file(count))
        running.set_up()
        before = len(running.log())
        running.start()
        restored = re.findall(r"event=\"flows restored\".* flows=(\d+)", running.log()[before:])
        assert sum(map(int, restored)) == len(busy)
        await_rounds(busy, running)
        carried = Carried(running)

        def owned(carried: Carried = carried, count: int = count) -> bool:
            found = [*carried.owners(6, 4).values(), *carried.owners(6, 6).values()]
            return len(found) == len(busy) and max(found) < count

        carried.until(owned, f"an entry of each connection, of one of {count} workers")
    assert [each.end().startswith('{"rounds": ') for each in busy] == [True] * len(busy)
    carried.until(lambda: not (carried.owners(6, 4) or carried.owners(6, 6)), "no entry")


def programs(net: Topology) -> list[int]:
    """How many programs are at the ingress of both interfaces."""
    return [programs_at(net.balancer, name) for name in ("eth0", "eth1")]


def queues(net: Topology) -> str:
    """The queues that have a reader."""
    return net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout


def switch(running: LabBalancer, position: str) -> None:
    """`paraglider carrier` on or off."""
    command = [sys.executable, "-m", "paraglider", "-c", str(running.config), "carrier", position]
    running.namespace.run(command)
