"""The life of dsr's flows that BPF carries, which the kernel has decided: whatever becomes of
backends, file and daemon, they go on or end as a worker's do, and nothing of them is left.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, programs_at
from clients import Client, await_rounds
from directing import FAMILIES, directed, service
from failing import control
from test_carrier_life import pins
from waiting import TIMEOUT, wait_until

from paraglider.bpf.layout import DECIDED, DIRECT
from paraglider.core.flow import TCP
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

SIZE = 20_000


class Bed:
    """The network, the balancer, and clients of both families."""

    def __init__(self, net: Topology, running: LabBalancer, place: Path) -> None:
        self.net = net
        self.running = running
        self.carried = Carried(running)
        self._place = place
        self._count = 0
        self.busy: dict[int, list[Client]] = {family: [] for family in FAMILIES}

    def open(self, family: int) -> None:
        """Another connection, which goes on until it is ended."""
        self._count += 1
        output = self._place / f"client{self._count}"
        client = Client(self.net.client, output, "rounds", VIP[family], 80, SIZE)
        self.busy[family].append(client)
        await_rounds([client], self.running)

    @property
    def clients(self) -> list[Client]:
        """All connections."""
        return [client for some in self.busy.values() for client in some]

    def go_on(self, *, carried: bool = True) -> None:
        """All connections go on; the program carries them all, or none."""
        await_rounds(self.clients, self.running)
        wanted = len(self.clients) if carried else 0
        wait_until(
            lambda: control(self.running).get("carrier")["flows"] == wanted, self.running.log
        )

    def broken(self, client: Client) -> None:
        """``client`` ends with an error."""
        client.process.wait(TIMEOUT)
        assert '"rounds"' not in client.lines()[-1]
        for some in self.busy.values():
            if client in some:
                some.remove(client)

    def backends(self, family: int) -> list[str]:
        """The backends of the family's live connections."""
        found = control(self.running).get("flows")["flows"]
        return [
            flow["backend"]
            for flow in found
            if flow["service"] == f"web{family}" and flow["state"] in ("established", "unconfirmed")
        ]

    def command(self, *words: str) -> None:
        """A command of paraglider for this balancer."""
        command = [sys.executable, "-m", "paraglider", "-c", str(self.running.config), *words]
        self.running.namespace.run(command)


@pytest.fixture
def bed(topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path) -> Bed:
    """Three connections of each family, decided by the kernel: one to each backend."""
    net = directed(topology)
    serve_peer(net, 80)
    services = [service(f, "bpf", decide="auto", drain_timeout=3600) for f in FAMILIES]
    running = balancer(net, config(*services, workers=2), trouble=True)
    made = Bed(net, running, tmp_path)
    carried = made.carried
    carried.decide(2)
    with carried.counting("opened", 6):
        for family in FAMILIES:
            for _ in range(3):
                made.open(family)
    for family in FAMILIES:
        flags = carried.flags(TCP, family).values()
        assert [each & (DECIDED | DIRECT) for each in flags] == [DECIDED | DIRECT] * 3
        wait_until(lambda f=family: len(set(made.backends(f))) == 3, running.log)
    return made


def test_backends_and_the_file_change(bed: Bed) -> None:
    """Draining, maint, a reload and the switch end no connection; the end of a drain and a kill end
    those that they are about, and no other.
    """
    running = bed.running
    first = {family: min(bed.backends(family)) for family in FAMILIES}
    for family in FAMILIES:
        control(running).set_backend(f"web{family}", first[family], state="drain")
    bed.go_on()
    for family in FAMILIES:
        bed.carried.until(lambda f=family: bed.carried.picks(f"web{f}") == 2, "the others alone")
        for _ in range(2):
            bed.open(family)
        wait_until(lambda f=family: len(bed.backends(f)) == 5, running.log)
        assert bed.backends(family).count(first[family]) == 1
        control(running).set_backend(f"web{family}", first[family], state="ready")

    text = running.config.read_text()
    running.config.write_text(text.replace("drain_timeout: 3600", "drain_timeout: 3000"))
    bed.command("reload")
    bed.go_on()

    bed.command("carrier", "off")
    bed.go_on(carried=False)
    bed.command("carrier", "on")
    bed.go_on()

    for family in FAMILIES:
        control(running).set_backend(f"web{family}", first[family], state="maint")
    bed.go_on()
    for family in FAMILIES:
        control(running).set_backend(f"web{family}", first[family], state="ready")

    text = running.config.read_text()
    running.config.write_text(text.replace("drain_timeout: 3000", "drain_timeout: 1"))
    bed.command("reload")
    for family in FAMILIES:
        control(running).set_backend(f"web{family}", first[family], state="drain")
    for family in FAMILIES:

        def ended(family: int = family) -> list[Client]:
            return [client for client in bed.busy[family] if client.process.poll() is not None]

        wait_until(ended, running.log)
        for client in ended():
            bed.broken(client)
        assert len(bed.busy[family]) == 4
    bed.go_on()

    bed.command("flows", "--service", "web6", "kill")
    for client in list(bed.busy[6]):
        bed.broken(client)
    bed.go_on()
    assert [client.end().startswith('{"rounds": ') for client in bed.clients] == [True] * 4


def test_the_daemon_goes_and_comes(bed: Bed) -> None:
    """Connections go on while it is killed, stopped and away, new ones begin, and the next daemon
    has all of them; undoing leaves no pin and no program.
    """
    running, net = bed.running, bed.net
    place = pins(net)
    for how in (signal.SIGKILL, signal.SIGTERM):
        running.stop(how)
        await_rounds(bed.clients, running)
        for family in FAMILIES:
            bed.open(family)
        running.start()
        bed.go_on()
        for family in FAMILIES:
            wanted = len(bed.busy[family])
            wait_until(lambda f=family, n=wanted: len(bed.backends(f)) == n, running.log)
    assert [client.end().startswith('{"rounds": ') for client in bed.clients] == [True] * 10
    carried = Carried(running)
    carried.until(
        lambda: not any(bed.backends(family) for family in FAMILIES), "no live connection"
    )
    running.stop()
    assert place.exists()
    running.undo()
    assert not place.exists()
    assert [programs_at(net.balancer, name) for name in ("eth0", "eth1")] == [0, 0]
