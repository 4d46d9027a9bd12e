"""Honest clients under a flood of SYNs, with every way of forwarding and with kernel DNAT.

``python -m bench.flood [--rate N] [--rounds N] [--seconds N] [--only NAME,…]``, as root: each round
has every peer once, in an order that turns, on a stage of its own. Honest clients
(``bench/honest.py``) are measured first without a flood, then under one of spoofed sources
(``bench/syns.py``). Printed are medians over the rounds: the share of honest connections that was
answered within a second, its ratio to kernel DNAT's of the same run, and the median time of
requests over a connection that stays, under the flood and without.

Rules: figures are ratios of one run on one machine, on which generator, clients, backends and
balancer share the cores; what a flood costs these is in all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.network import HTTP_PORT, Stage
from bench.peers import PEERS, Peer
from bench.staging import staged
from bench.syns import NETWORKS
from paraglider.errors import OperatorError, ParagliderError
from paraglider.lab import topology
from paraglider.lab.interrupts import Interrupts

REFERENCE = "dnat"
NAMES = (REFERENCE, "nat-netlink", "offload", "dsr", "proxy")
HONEST_RATE = 200  # connections a second
HERE = Path(__file__).parent
GRACE = 60.0  # seconds that a program may take longer than asked


@dataclass(slots=True)
class Figures:
    """What the rounds of one peer gave: shares of connections, and ms."""

    shares: list[float] = field(default_factory=list)
    calm: list[float] = field(default_factory=list)
    flooded: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def row(self, title: str, reference: Figures | None) -> list[str]:
        """The line of the table."""
        if not self.shares:
            return [title, *["-"] * 6]
        share, calm, flooded = map(statistics.median, (self.shares, self.calm, self.flooded))
        ratio = "-"
        if reference is not None and reference.shares:
            ratio = f"×{share / max(statistics.median(reference.shares), 1e-9):.2f}"
        return [
            title,
            f"{share:.0%}",
            ratio,
            f"{calm:.2f}",
            f"{flooded:.2f} (×{flooded / calm:.1f})",
            f"{statistics.median(self.p99):.1f}",
            f"{statistics.median(self.rates):,.0f}",
        ]


def absorb(stage: Stage) -> None:
    """Have the answers to the flood end at the client, whichever way they come."""
    made = stage.topology
    network = NETWORKS[4]
    made.client.ip(f"route add blackhole {network}")
    for namespace in (made.balancer, *(made.backends if stage.direct else ())):
        namespace.ip(f"route add {network} via {topology.CLIENT[4]}")


def honest(stage: Stage, peer: Peer, seconds: int) -> dict[str, Any]:
    """What honest clients met for so long."""
    numbers = map(str, (HTTP_PORT, HONEST_RATE, seconds))
    command = [sys.executable, str(HERE / "honest.py"), peer.address, *numbers]
    done = stage.topology.client.run(command, timeout=seconds + GRACE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(stage: Stage, peer: Peer, rate: int, seconds: int, figures: Figures) -> None:
    """One round of one peer: without a flood, then under one that is there before and after."""
    figures.calm.append(honest(stage, peer, seconds)["p50"])
    made = stage.topology
    link = json.loads(made.balancer.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    target = ["eth0", link["address"], peer.address, str(HTTP_PORT)]
    count = rate * (seconds + 4)
    command = [sys.executable, str(HERE / "syns.py"), *target, str(count), str(rate)]
    flood = made.client.popen(command, stdout=subprocess.PIPE)
    try:
        found = honest(stage, peer, seconds)
    finally:
        out, _ = flood.communicate(timeout=seconds + GRACE)
    sent = json.loads(out)
    figures.shares.append(found["kept"] / found["tried"])
    figures.flooded.append(found["p50"])
    figures.p99.append(found["p99"])
    figures.rates.append(sent["sent"] / sent["seconds"])


def table(peers: list[Peer], found: dict[str, Figures]) -> Table:
    """The medians, a line a peer."""
    grid = Table("", "kept", "of DNAT's", "p50 calm, ms", "p50 flooded, ms", "p99, ms", "SYN/s")
    for peer in peers:
        grid.add_row(*found[peer.name].row(peer.title, found.get(REFERENCE)))
    return grid


@click.command()
@click.option("--rate", type=click.IntRange(1, 1_000_000), default=60_000, help="SYNs a second.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, help="Rounds.")
@click.option("--seconds", type=click.IntRange(1, 60), default=4, help="Length of a measurement.")
@click.option("--only", metavar="NAME,…", help=f"Some of: {', '.join(PEERS)}.")
def main(rate: int, rounds: int, seconds: int, only: str | None) -> None:
    """Measure honest clients under a flood of SYNs."""
    if os.geteuid() != 0:
        raise OperatorError("the bench makes network namespaces, which needs root", "use sudo")
    peers = [PEERS[name] for name in (only.split(",") if only else NAMES)]
    found = {peer.name: Figures() for peer in peers}
    console = Console(highlight=False)
    with Interrupts() as interrupts:
        for number in range(rounds):
            at = number % len(peers)
            for peer in peers[at:] + peers[:at]:
                try:
                    with staged(peer, interrupts, absorb) as stage:
                        measure(stage, peer, rate, seconds, found[peer.name])
                except ParagliderError as error:
                    console.print(f"round {number + 1} · {peer.name}: {error}", markup=False)
    console.print(table(peers, found))


if __name__ == "__main__":
    main()
