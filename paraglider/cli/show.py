"""`paraglider show`: what is balanced here, and how much of it.

Lives here: the click command ``show`` and its table.
Rules: reads and changes nothing. Columns are those of `ipvsadm -Ln --stats`, with the weight and
what it comes to; `--json` has the same for programs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from paraglider.cli.main import Options, config_accepted
from paraglider.system.checks import check_root
from paraglider.system.nft import Nft
from paraglider.system.owner import STARTED, owner_of, state_path
from paraglider.system.started import StartedBackend, StartedService, started
from paraglider.system.state import StateFile

_WIDTH = 200


@click.command()
@config_accepted
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(options: Options, as_json: bool) -> None:
    """List the services that `start` has at work, with their counters; needs no file.

    Conns: connections begun. In: from the clients; out: to them.
    """
    check_root("paraglider show")
    owner = owner_of(state_path())
    changes = StateFile(owner=STARTED).load() if owner == STARTED else []
    services = [
        service
        for service in started(changes, Nft())
        if (6 if ":" in service.vip else 4) in options.families
    ]
    if as_json:
        print(json.dumps({"services": [asdict(service) for service in services]}, indent=2))
    elif not services:
        other = f"; this host is set up by `{owner}`" if owner not in (None, STARTED) else ""
        print(f"nothing is started{other}")
    else:
        # Addresses in brackets are no markup; what is not a terminal has no edge to wrap at.
        width = None if sys.stdout.isatty() else _WIDTH
        Console(markup=False, highlight=False, width=width).print(listing(services))


def listing(services: list[StartedService]) -> Table:
    """The table for a terminal: a line a service, below it one a backend."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Service → backend", no_wrap=True)
    for name in ("Weight", "Share", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"):
        table.add_column(name, justify="right")
    for service in services:
        table.add_row(_title(service), *_sums(service), style="bold")
        for backend in service.backends:
            table.add_row(
                f"  → {_endpoint(backend.address, backend.port)}",
                str(backend.weight),
                f"{backend.share:.1%}",
                *_counts([backend]),
            )
    return table


def _title(service: StartedService) -> str:
    where = f"{_host(service.vip)}:{service.ports or '*'}"
    kept = ", a client keeps its backend" if service.affinity == "client" else ""
    return f"{service.name} {where} {service.protocol} {service.strategy}{kept}"


def _sums(service: StartedService) -> tuple[str, ...]:
    return ("", "", *_counts(service.backends))


def _counts(backends: tuple[StartedBackend, ...] | list[StartedBackend]) -> tuple[str, ...]:
    names = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
    return tuple(str(sum(getattr(backend, name) for backend in backends)) for name in names)


def _endpoint(address: str, port: int | None) -> str:
    return address if port is None else f"{_host(address)}:{port}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
