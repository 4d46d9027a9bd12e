"""Honest clients under a flood of new flows, with every forward method and with kernel DNAT.

``python -m bench.flood [--kind tcp|stray|udp] [--rate N] [--rounds N] [--seconds N] [--only
NAME,…]``, as root: each round measures every peer once, in rotating order, each on a new stage.
Honest clients (``bench/honest.py``) are measured first without a flood, then under one of SYNs, of
segments of no connection, or of datagrams from spoofed sources (``bench/syns.py``). It prints
medians over the rounds: the share of honest connections that were answered within a second, for a
client from before the flood and for clients that come during it, and the ratio of the first to
kernel DNAT's of the same run; the share of new UDP flows; the median response time of a long-lived
connection and UDP flow, under the flood and without.

Rules: figures are ratios of one run on one machine, on which generator, clients, backends and
balancer share the cores; the cost of the flood itself is in all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.network import BACKENDS, HTTP_PORT, IPERF_PORT, VIP, Stage
from bench.peers import PEERS, Peer
from bench.staging import staged
from bench.syns import KINDS, MOST, NETWORKS
from paraglider.errors import OperatorError, ParagliderError, as_root
from paraglider.lab import topology
from paraglider.lab.interrupts import Interrupts

REFERENCE = "dnat"
NAMES = (REFERENCE, "nat-netlink", "offload", "dsr", "proxy")
#: packets from a network take CPU time from every process
FIRST = ("nice", "-n", "-15")
HONEST_RATE = 200  # connections a second
#: where clients come from that were not there before the flood (RFC 5737)
NEWCOMERS = "203.0.113.0/24"
HERE = Path(__file__).parent
GRACE = 60.0  # seconds that a program may exceed its time


@dataclass(slots=True)
class Figures:
    """The results of one peer: by the names of ``honest``, and the flood's packets per second."""

    calm: dict[str, list[float]] = field(default_factory=dict)
    flooded: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)

    def add(self, calm: dict[str, float], flooded: dict[str, float], rate: float) -> None:
        """Add the results of one round."""
        for found, into in ((calm, self.calm), (flooded, self.flooded)):
            for name, value in (found | shares(found)).items():
                into.setdefault(name, []).append(value)
        self.rates.append(rate)

    def share(self, kind: str) -> float | None:
        """The median share under the flood of ``kind`` ("", "new_", "udp_"), if there is any."""
        values = self.flooded.get(f"{kind}share")
        return statistics.median(values) if values else None

    def row(self, title: str, reference: Figures | None) -> list[str]:
        """The line of the table."""
        cells = [title]
        for kind in ("", "new_", "udp_"):
            share = self.share(kind)
            against = None if reference is None else reference.share(kind)
            cells.append("-" if share is None else f"{share:.0%}")
            if share is not None and against is not None:
                cells[-1] += f" (×{share / max(against, 1e-9):.2f})"
        cells += map(self._times, ("p50", "udp_p50"))
        cells.append(f"{statistics.median(self.rates):,.0f}" if self.rates else "-")
        return cells

    def _times(self, name: str) -> str:
        if name not in self.flooded:
            return "-"
        calm, flooded = (statistics.median(of[name]) for of in (self.calm, self.flooded))
        ratios = [b / a for a, b in zip(self.calm[name], self.flooded[name], strict=True)]
        ends = f"{min(ratios):.1f}–{max(ratios):.1f}"
        return f"{calm:.2f} → {flooded:.2f} (×{statistics.median(ratios):.1f}, {ends})"


def shares(found: dict[str, float]) -> dict[str, float]:
    """The kept shares of the tried connections."""
    return {
        f"{kind}share": found[f"{kind}kept"] / found[f"{kind}tried"]
        for kind in ("", "new_", "udp_")
        if found.get(f"{kind}tried")
    }


def absorb(stage: Stage) -> None:
    """Route the answers to the flood to the client, where they end, and
    those to new clients too.
    """
    made = stage.topology
    made.client.ip(f"route add blackhole {NETWORKS[4]}", f"route add local {NEWCOMERS} dev lo")
    for namespace in (made.balancer, *(made.backends if stage.direct else ())):
        for network in (NETWORKS[4], NEWCOMERS):
            namespace.ip(f"route add {network} via {topology.CLIENT[4]}")


def send_back(stage: Stage, peer: Peer) -> None:
    """Have the first backend echo datagrams, from the VIP's address."""
    address = VIP if peer.name == "dsr" else BACKENDS[0]
    stage.topology.backends[0].popen(
        [sys.executable, str(HERE / "echo.py"), address, str(IPERF_PORT)]
    )


def honest(stage: Stage, peer: Peer, seconds: int, *, newcomers: bool) -> dict[str, float]:
    """The results of honest clients for ``seconds``."""
    numbers = [str(number) for number in (HTTP_PORT, HONEST_RATE, seconds)]
    numbers.append("0" if "udp" in peer.cannot else str(IPERF_PORT))
    command = [sys.executable, str(HERE / "honest.py"), peer.address, *numbers]
    command += [NEWCOMERS] if newcomers else []
    done = stage.topology.client.run(command, timeout=seconds + GRACE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(stage: Stage, peer: Peer, kind: str, rate: int, seconds: int, figures: Figures) -> None:
    """One round of one peer: without a flood, then under one that covers the whole measurement."""
    calm = honest(stage, peer, seconds, newcomers=False)
    made = stage.topology
    link = json.loads(made.balancer.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    port = str(IPERF_PORT if kind == "udp" else HTTP_PORT)
    target = ["eth0", link["address"], peer.address, port]
    command = [*FIRST, sys.executable, str(HERE / "syns.py"), *target, str(MOST), str(rate), kind]
    flood = made.client.popen(command, stdout=subprocess.PIPE)
    try:
        if flood.stdout is not None:
            flood.stdout.readline()
        flooded = honest(stage, peer, seconds, newcomers=True)
    finally:
        flood.terminate()
        out, _ = flood.communicate(timeout=GRACE)
    sent = json.loads(out)
    figures.add(calm, flooded, sent["sent"] / sent["seconds"])


def table(peers: list[Peer], found: dict[str, Figures]) -> Table:
    """The medians, a line a peer."""
    grid = Table("", "kept", "of new clients", "of UDP flows", "p50, ms", "UDP, ms", "flood/s")
    for peer in peers:
        grid.add_row(*found[peer.name].row(peer.title, found.get(REFERENCE)))
    return grid


@click.command()
@click.option("--kind", type=click.Choice(list(KINDS)), default="tcp", help="Of what.")
@click.option("--rate", type=click.IntRange(1, 1_000_000), default=60_000, help="Packets a second.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, help="Rounds.")
@click.option("--seconds", type=click.IntRange(1, 60), default=4, help="Length of a measurement.")
@click.option("--only", metavar="NAME,…", help=f"Some of: {', '.join(PEERS)}.")
def main(kind: str, rate: int, rounds: int, seconds: int, only: str | None) -> None:
    """Measure honest clients under a flood."""
    if os.geteuid() != 0:
        remedy = f"run it as root: {as_root('scripts/bench')}"
        raise OperatorError("the bench makes network namespaces, which needs root", remedy)
    names = only.split(",") if only else NAMES
    peers = [PEERS[name] for name in names if kind not in PEERS[name].cannot]
    found = {peer.name: Figures() for peer in peers}
    console = Console(highlight=False)
    with Interrupts() as interrupts:
        for number in range(rounds):
            at = number % len(peers)
            for peer in peers[at:] + peers[:at]:
                try:
                    with staged(peer, interrupts, absorb) as stage:
                        send_back(stage, peer)
                        measure(stage, peer, kind, rate, seconds, found[peer.name])
                except ParagliderError as error:
                    console.print(f"round {number + 1} · {peer.name}: {error}", markup=False)
    console.print(table(peers, found))


if __name__ == "__main__":
    main()
