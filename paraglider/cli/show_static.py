"""`paraglider show` on a host that `paraglider start` set up.

Lives here: ``show_static`` and its table.
Rules: reads and changes nothing. The columns are those of `ipvsadm -Ln --stats`, with the weight
and the share of new connections; `--json` has the same data.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from paraglider.cli.common_options import print_json, print_table
from paraglider.host.ownership import STARTED
from paraglider.host.state import StateFile
from paraglider.host.static_status import StaticBackend, StaticService, static_services
from paraglider.netfilter.nft import Nft


def show_static(families: frozenset[int], *, as_json: bool) -> None:
    """List the services of ``families`` that `paraglider start` set up, from the kernel.

    Conns: connections begun. In: from clients; out: to clients.
    """
    changes = StateFile(owner=STARTED).load()
    services = [
        service
        for service in static_services(changes, Nft())
        if (6 if ":" in service.vip else 4) in families
    ]
    if as_json:
        print_json({"services": [_with_old_names(asdict(service)) for service in services]})
    else:
        print_table(listing(services))


def _with_old_names(service: dict[str, Any]) -> dict[str, Any]:
    """``service`` with the deprecated key "connections", which is "conns"."""
    for backend in service["backends"]:
        backend["connections"] = backend["conns"]
    return service


def listing(services: list[StaticService]) -> Table:
    """The table for a terminal: a line per service, followed by a line per backend."""
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


def _title(service: StaticService) -> str:
    where = f"{_host(service.vip)}:{service.ports or '*'}"
    kept = ", a client keeps its backend" if service.affinity == "client" else ""
    return f"{service.name} {where} {service.protocol} {service.strategy}{kept}"


def _sums(service: StaticService) -> tuple[str, ...]:
    return ("", "", *_counts(service.backends))


def _counts(backends: tuple[StaticBackend, ...] | list[StaticBackend]) -> tuple[str, ...]:
    names = ("conns", "packets_in", "packets_out", "bytes_in", "bytes_out")
    return tuple(str(sum(getattr(backend, name) for backend in backends)) for name in names)


def _endpoint(address: str, port: int | None) -> str:
    return address if port is None else f"{_host(address)}:{port}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
