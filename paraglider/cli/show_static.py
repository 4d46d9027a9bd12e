"""What `paraglider show` shows where the kernel balances alone: what `start` began.

Lives here: ``show_started`` and its table.
Rules: reads and changes nothing. Columns are those of `ipvsadm -Ln --stats`, with the weight and
what it comes to; `--json` has the same for programs.
"""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from paraglider.cli.common_options import print_json, put
from paraglider.host.ownership import STARTED
from paraglider.host.state import StateFile
from paraglider.host.static_status import StartedBackend, StartedService, started
from paraglider.netfilter.nft import Nft


def show_started(families: frozenset[int], *, as_json: bool) -> None:
    """List the services of ``families`` that `start` has at work; no file, no daemon is asked.

    Conns: connections begun. In: from the clients; out: to them.
    """
    changes = StateFile(owner=STARTED).load()
    services = [
        service
        for service in started(changes, Nft())
        if (6 if ":" in service.vip else 4) in families
    ]
    if as_json:
        print_json({"services": [asdict(service) for service in services]})
    else:
        put(listing(services))


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
