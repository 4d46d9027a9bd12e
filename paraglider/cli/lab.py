"""``paraglider lab``: see the balancer at work in network namespaces of its own."""

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
    help="How packets are forwarded.",
)
@click.option("--workers", type=click.IntRange(1, 4096), default=1, help="Workers, one a core.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=30,
    help="Connections to open a protocol and family.",
)
@click.option("--backends", type=click.IntRange(1, 100), default=3, help="Backends to balance.")
@click.option(
    "-f", "--failover", is_flag=True, help="Have a backend die, return, another join, one drain."
)
@click.option("--keep", is_flag=True, help="Leave the lab up and say how to play with it.")
@click.option("--down", is_flag=True, help="Remove the labs that were left up.")
def lab(
    forward: str,
    workers: int,
    connections: int,
    backends: int,
    failover: bool,
    keep: bool,
    down: bool,
) -> None:
    """Build a client, a balancer and backends in network namespaces, and balance.

    Runs the real set-up and the real daemon, shows who answered how often over IPv4 and IPv6,
    and leaves nothing behind.
    """
    if os.geteuid() != 0:
        raise OperatorError("the lab makes network namespaces, which needs root", "use sudo")
    console = Console(highlight=False)
    if down:
        gone = scenario.down()
        console.print(f"Removed {', '.join(gone)}." if gone else "No lab was left up.")
        return
    options = scenario.Options(forward, workers, connections, backends, keep, failover)
    told = failover_scenario.FailoverLab if failover else scenario.Lab
    try:
        good = told(options, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was built has been removed.")
        raise
    if not good:
        raise SystemExit(1)
