"""``paraglider lab``: demonstrates the balancer in network namespaces."""

from __future__ import annotations

import os

import click
from rich.console import Console

from paraglider.errors import OperatorError
from paraglider.lab import failover_scenario, scenario


@click.command()
@click.option(
    "--forward",
    type=click.Choice(scenario.FORWARDS),
    default="nat",
    show_default=True,
    help="Forward method.",
)
@click.option(
    "--carrier",
    type=click.Choice(["auto", "bpf", "xdp", "worker"]),
    help="What carries the flows, with --forward nat, dsr and tunnel; xdp: with nat and dsr."
    " Default: auto.",
)
@click.option("--workers", type=click.IntRange(1, 4096), default=1, help="Workers, one per core.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=30,
    show_default=True,
    help="Connections to open per protocol and family.",
)
@click.option("--backends", type=click.IntRange(1, 100), default=3, help="Number of backends.")
@click.option(
    "-f",
    "--failover",
    is_flag=True,
    help="Show failover: a backend dies and returns, a host joins, one drains.",
)
@click.option("--keep", is_flag=True, help="Keep the lab running and print how to use it.")
@click.option("--down", is_flag=True, help="Remove labs that were kept.")
def lab(
    forward: str,
    carrier: str | None,
    workers: int,
    connections: int,
    backends: int,
    failover: bool,
    keep: bool,
    down: bool,
) -> None:
    """Build a client, a balancer and backends in network namespaces, and balance.

    Runs the real set-up and daemon, shows how many responses came from each backend over IPv4
    and IPv6, and leaves nothing behind.
    """
    if os.geteuid() != 0:
        raise OperatorError("the lab creates network namespaces, which needs root", "use sudo")
    console = Console(highlight=False)
    if down:
        removed = scenario.down()
        console.print(f"Removed {', '.join(removed)}." if removed else "No lab is running.")
        return
    options = scenario.LabOptions(
        forward, workers, connections, backends, keep, failover, carrier=carrier
    )
    chosen = failover_scenario.FailoverLab if failover else scenario.Lab
    try:
        good = chosen(options, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was built has been removed.")
        raise
    if not good:
        raise SystemExit(1)
