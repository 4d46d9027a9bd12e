"""The tables that people read: services with their backends, flows, processes.

Rules: pure, from the control socket's answers to ``rich`` tables. Shaped as ``ipvsadm -Ln --stats``
is, a service and below it its backends; what does not pass a worker is shown as "-".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

#: colour and meaning differ in words too, so nobody needs to see colours
_COLOURS: Final = {"ready": "green", "drain": "yellow", "maint": "yellow"}
_COUNTERS: Final = {
    "Flows": "flows",
    "Conns": "picked",
    "InPkts": "packets_in",
    "OutPkts": "packets_out",
    "InBytes": "bytes_in",
    "OutBytes": "bytes_out",
}


def balance(services: Iterable[Row], backends: Iterable[Row]) -> Table:
    """Every service, and below it its backends."""
    table = _table("Service / backend", "Forward", "State", "for", right=("Weight", *_COUNTERS))
    table.add_column("Last check")
    members = list(backends)
    for service in services:
        ready = f"{service['ready']} of {service['backends']} ready"
        table.add_row(
            f"{service['service']} {endpoint(service)}",
            f"{service['forward']} {service['strategy']}",
            Text(ready, "red" if not service["ready"] else ""),
            "",
            "",
            *(quantity(service[name]) for name in _COUNTERS.values()),
            "",
            style="bold",
        )
        for member in members:
            if member["service"] == service["service"]:
                table.add_row(
                    f"  -> {member['backend']}",
                    "",
                    Text(member["state"], _COLOURS.get(member["state"], "red")),
                    duration(member["seconds"]),
                    str(member["weight"]),
                    *(quantity(member[name]) for name in _COUNTERS.values()),
                    checked(member["check"]),
                )
    return table


def services(rows: Iterable[Row]) -> Table:
    """A line a service."""
    table = _table(
        "Service", "Address", "Forward", "Strategy", "Affinity", right=("Ready", *_COUNTERS)
    )
    for row in rows:
        table.add_row(
            row["service"],
            endpoint(row),
            row["forward"],
            row["strategy"],
            row["affinity"],
            f"{row['ready']}/{row['backends']}",
            *(quantity(row[name]) for name in _COUNTERS.values()),
        )
    return table


def flows(rows: Iterable[Row]) -> Table:
    """A line a flow."""
    table = _table("Service", "Proto", "Client", "VIP", "Backend", "State", right=("Idle",))
    for row in rows:
        table.add_row(
            row["service"] or "(gone)",
            row["protocol"],
            _end(row["client"], row["client_port"]),
            _end(row["vip"], row["port"]),
            row["backend"],
            row["state"],
            duration(row["idle"]),
        )
    return table


def processes(rows: Iterable[Row]) -> Table:
    """A line a process."""
    table = _table("Process", "State", right=("PID", "Up", "Flows"))
    table.add_column("Counters")
    for row in rows:
        counts = row.get("counts", {})
        table.add_row(
            row["name"],
            Text("serves", "green") if row["serves"] else Text("does not serve", "red"),
            quantity(row["pid"]) if row["pid"] is None else str(row["pid"]),
            "-" if row["seconds"] is None else duration(row["seconds"]),
            quantity(row.get("flows")),
            " ".join(f"{name}={value}" for name, value in counts.items()),
        )
    return table


def endpoint(service: Row) -> str:
    """Protocol, VIP and ports of a service."""
    return f"{service['protocol']} {_end(service['vip'], service['ports'])}"


def quantity(value: int | None) -> str:
    """A number as short as ipvsadm has it: 12345 → 12345, 123456 → 123K; "-" for None."""
    if value is None:
        return "-"
    for unit in ("", "K", "M", "G"):
        if value < 100_000:
            return f"{value}{unit}"
        value //= 1000
    return f"{value}T"


def duration(seconds: float) -> str:
    """Seconds as the two largest units: 5s, 2m5s, 3h2m, 4d3h."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d{hours_left}h"
    if hours:
        return f"{hours}h{minutes_left}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def checked(check: Row | None) -> str:
    """The last look of health."""
    if check is None:
        return "-"
    outcome = "passed" if check["passed"] else "failed"
    detail = f": {check['detail']}" if check["detail"] else ""
    took = check["took"] * 1000
    return f"{outcome} {duration(check['seconds'])} ago in {took:.0f} ms{detail}"


def _end(address: str, port: str | int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _table(*left: str, right: Iterable[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table
