"""`paraglider show` on a host that `paraglider start` set up.

Lives here: ``started_services``, and ``show_static`` with its table.
Rules: reads and changes nothing. The columns are those of `ipvsadm -Ln --stats`, with the weight
and the share of new connections; `--json` has the same data.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from paraglider.cli.common_options import print_json, print_table
from paraglider.cli.listing import Column, TextTable
from paraglider.host.ownership import STARTED
from paraglider.host.state import StateFile
from paraglider.host.static_status import StaticBackend, StaticService, static_services
from paraglider.netfilter.nft import Nft


def started_services(families: frozenset[int]) -> list[StaticService]:
    """The services of ``families`` that `paraglider start` set up, from the kernel."""
    changes = StateFile(owner=STARTED).load()
    return [
        service
        for service in static_services(changes, Nft())
        if (6 if ":" in service.vip else 4) in families
    ]


def show_static(services: list[StaticService], *, as_json: bool) -> None:
    """List ``services``.

    Conns: connections begun. In: from clients; out: to clients.
    """
    if as_json:
        print_json({"services": [_with_old_names(asdict(service)) for service in services]})
    else:
        print_table(listing(services))


def _with_old_names(service: dict[str, Any]) -> dict[str, Any]:
    """``service`` with the deprecated key "connections", which is "conns"."""
    for backend in service["backends"]:
        backend["connections"] = backend["conns"]
    return service


def listing(services: list[StaticService]) -> TextTable:
    """The table for a terminal: a line per service, followed by a line per backend."""
    table = TextTable(
        (
            Column("Service → backend"),
            Column("Weight", right=True),
            Column("Share", right=True, rank=1),
            Column("Conns", right=True),
            Column("InPkts", right=True, rank=2),
            Column("OutPkts", right=True, rank=2),
            Column("InBytes", right=True),
            Column("OutBytes", right=True),
        )
    )
    for service in services:
        table.add(_title(service), *_sums(service), over=3, style="bold", again="  all")
        for backend in service.backends:
            table.add(
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
