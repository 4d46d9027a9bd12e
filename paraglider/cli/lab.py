"""``paraglider lab``: demonstrates the balancer in network namespaces."""

from __future__ import annotations

import os

import click
from rich.console import Console

from paraglider.cli.choices import Choice
from paraglider.errors import OperatorError, as_root
from paraglider.lab import removal, scenario
from paraglider.lab.failover_scenario import FailoverLab
from paraglider.lab.fleet_scenario import FleetLab
from paraglider.lab.pair_scenario import PairLab
from paraglider.netfilter.programs import search_sbin


@click.command()
@click.option(
    "--forward",
    type=Choice(scenario.FORWARDS),
    default="nat",
    show_default=True,
    help="Forward method.",
)
@click.option(
    "--carrier",
    type=Choice(["auto", "bpf", "xdp", "worker"]),
    help="What carries the flows, with --forward nat, dsr and tunnel; xdp: with nat and dsr."
    " Default: auto.",
)
@click.option("--workers", type=click.IntRange(1, 4096), default=1, help="Workers, one per core.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    help="Connections to open per protocol and family. Default: 30; 60 with --balancers and --pair,"
    " which keep them open.",
)
@click.option("--backends", type=click.IntRange(1, 100), default=3, help="Number of backends.")
@click.option(
    "-f",
    "--failover",
    is_flag=True,
    help="Show failover: a backend dies and returns, a host joins, one drains.",
)
@click.option(
    "--balancers",
    type=click.IntRange(2, 9),
    metavar="N",
    help="Show N active balancers behind a router: one is killed, loses its power, is drained,"
    " restarts.",
)
@click.option(
    "--pair",
    is_flag=True,
    help="Show two balancers with VRRP: the same happens to the active one.",
)
@click.option("--keep", is_flag=True, help="Keep the lab running and print how to use it.")
@click.option("--down", is_flag=True, help="Remove labs that were kept.")
def lab(
    forward: str,
    carrier: str | None,
    workers: int,
    connections: int | None,
    backends: int,
    failover: bool,
    balancers: int | None,
    pair: bool,
    keep: bool,
    down: bool,
) -> None:
    """Build a client, a balancer and backends in network namespaces, and balance.

    Runs the real set-up and daemon, shows how many responses came from each backend over IPv4
    and IPv6, and leaves nothing behind. With --balancers and --pair it shows how many connections
    break when a balancer goes or returns; the exit code is 1 if any did.
    """
    if os.geteuid() != 0:
        remedy = f"run it as root: {as_root('paraglider lab')}"
        raise OperatorError("the lab creates network namespaces, which needs root", remedy)
    search_sbin()  # for BIRD and keepalived, too
    console = Console(highlight=False)
    if down:
        removed = removal.down()
        console.print(f"Removed {', '.join(removed)}." if removed else "No lab is running.")
        return
    several = pair or balancers is not None
    options = scenario.LabOptions(
        forward,
        workers,
        connections or (60 if several else 30),
        backends,
        keep,
        failover,
        carrier=carrier,
        balancers=balancers,
        pair=pair,
    )
    chosen: type[scenario.Lab] = FailoverLab if failover else scenario.Lab
    if several:
        chosen = PairLab if pair else FleetLab
    try:
        good = chosen(options, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was built has been removed.")
        raise
    if not good:
        raise SystemExit(1)
