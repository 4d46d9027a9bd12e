"""The tables of `show`, `flows` and `carrier`: services with their backends, flows, processes.

Rules: pure: converts the control socket's answers to text tables. The layout is that of ``ipvsadm
-Ln --stats``: a service, followed by its backends. Unknown values are shown as "-".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from paraglider.cli.listing import Column, TextTable
from paraglider.netfilter.rules.steering import QUEUE_NAMES

Row = Mapping[str, Any]

#: most services that a line names
MOST_NAMES: Final = 8

#: colours repeat the words, so that none is needed to read a table
_COLOURS: Final = {"ready": "green", "drain": "yellow", "maint": "yellow"}
_COUNTERS: Final = {
    "Flows": "flows",
    "InAct": "inactive",
    "Conns": "conns",
    "InPkts": "packets_in",
    "OutPkts": "packets_out",
    "InBytes": "bytes_in",
    "OutBytes": "bytes_out",
}
_RANKS: Final = {"InPkts": 3, "OutPkts": 3, "InAct": 4}


def balance(services: Iterable[Row], backends: Iterable[Row]) -> TextTable:
    """Every service, followed by its backends."""
    listing = TextTable(
        (
            Column("Service / backend"),
            Column("State"),
            Column("Since", right=True, rank=2),
            Column("Weight", right=True),
            *_counter_columns(),
            Column("Last check", least=10),
        )
    )
    members = list(backends)
    for service in services:
        sums = _counters(service)
        listing.add(title(service), "", "", "", *sums, "", over=4, style="bold", again="  all")
        for member in members:
            if member["service"] == service["service"]:
                listing.add(
                    f"  -> {member['backend']}",
                    state(member),
                    duration(member["seconds"]),
                    str(member["weight"]),
                    *_counters(member),
                    checked(member["check"]),
                )
    return listing


def services(rows: Iterable[Row]) -> TextTable:
    """One line per service."""
    listing = TextTable(
        (
            Column("Service", least=8),
            Column("Address", least=22),
            Column("Forward", rank=1),
            Column("Strategy", rank=2),
            Column("Affinity", rank=4),
            Column("Ready", right=True),
            *_counter_columns(),
        )
    )
    for row in rows:
        listing.add(
            row["service"],
            endpoint(row),
            forwarding(row),
            row["strategy"],
            row["affinity"],
            Text(f"{row['ready']}/{row['backends']}", "" if row["ready"] else "red"),
            *_counters(row),
        )
    return listing


def flows(rows: Iterable[Row]) -> TextTable:
    """One line per flow."""
    listing = TextTable(
        (
            Column("Service", least=8),
            Column("Proto", rank=2),
            Column("Client"),
            Column("VIP", rank=1),
            Column("Backend"),
            Column("State"),
            Column("Carrier", rank=3),
            Column("InPkts", right=True, rank=4),
            Column("OutPkts", right=True, rank=4),
            Column("Idle", right=True),
        )
    )
    for row in rows:
        listing.add(
            row["service"] or "(gone)",
            row["protocol"],
            _end(row["client"], row["client_port"]),
            _end(row["vip"], row["port"]),
            row["backend"],
            row["state"],
            row.get("carrier") or "-",
            *(quantity(row.get(name)) for name in ("packets_in", "packets_out")),
            duration(row["idle"]),
        )
    return listing


def processes(rows: Iterable[Row]) -> TextTable:
    """One line per process."""
    listing = TextTable(
        (
            Column("Process"),
            Column("State"),
            Column("PID", right=True, rank=3),
            Column("Filter", rank=4),
            Column("Carrier", rank=3),
            Column("Up", right=True, rank=1),
            Column("Active", right=True),
            Column("Closing", right=True, rank=5),
            Column("HalfOpen", right=True, rank=5),
            Column("Packets", right=True),
            Column("Busy", right=True),
            Column("Queue", right=True),
            Column("Drops", right=True),
            Column("Counters", least=8, rank=2),
        )
    )
    for row in rows:
        counts = row.get("counts", {})
        listing.add(
            row["name"],
            up(row),
            "-" if row["pid"] is None else str(row["pid"]),
            row.get("filter") or "-",
            row.get("carrier") or "-",
            "-" if row["seconds"] is None else duration(row["seconds"]),
            *(quantity(row.get(name)) for name in ("active", "closing", "half_open")),
            quantity(row.get("packets")),
            share(row.get("busy")),
            *queue(row),
            " ".join(f"{name}={value}" for name, value in counts.items()),
        )
    return listing


def carrier(answer: Row) -> Iterator[str]:
    """What carries flows, a line per fact."""
    reason = answer["reason"]
    yield f"{answer['carrier']}{f': {reason}' if reason else ''}"
    services = answer.get("services", ())  # an older daemon has none
    decided = [row["service"] for row in services if row["decided_by"] == "kernel"]
    if decided:
        yield f"the kernel decides for {_names(decided)}"
    yield from undecided(services)
    for name, why in answer.get("lacks", {}).items():
        yield f"workers carry {name}: {why}"
    if answer["able"]:
        yield f"interfaces: {', '.join(answer['devices']) or 'none'}"
        for name, why in answer.get("failed", {}).items():
            yield f"not attached to {name}: {why}"
        if answer.get("xdp") or answer.get("no_xdp"):  # an older daemon has neither
            yield f"at XDP: {', '.join(answer['xdp']) or 'none'}"
        for name, why in answer.get("no_xdp", {}).items():
            yield f"not at XDP of {name}: {why}"
        yield f"flows carried by BPF: {answer['flows']}, refused by the kernel: {answer['refused']}"


def carrier_packets(packets: Mapping[str, int]) -> TextTable:
    """The packets that the BPF program saw, by what it did with them, the most frequent first."""
    listing = TextTable((Column("Reason"), Column("Packets", right=True)))
    for reason, count in sorted(packets.items(), key=lambda each: -each[1]):
        if count:
            listing.add(reason, str(count))
    return listing


def forwarding(service: Row) -> str:
    """The forward method of a service, its carrier if that is not the worker, and what decides
    about its flows, unless that is a worker by `decide: python`.
    """
    carrier = service.get("carrier")
    if carrier not in ("bpf", "xdp"):
        return str(service["forward"])
    if service.get("decided_by") == "kernel":
        decides = ", kernel decides"
    else:
        decides = ", worker decides" if _undecided(service) else ""
    return f"{service['forward']} ({carrier}{decides})"


def drained(node: Row) -> str:
    """Whether a balancer is drained, since when, and until when: a line."""
    restart = "until the daemon's next start"
    if node["state"] == "ready":
        return "ready" if node["kept"] else f"ready {restart}, see its log"
    until = "until `paraglider node ready`" if node["kept"] else restart
    return f"draining for {duration(node['seconds'])}, not to be announced {until}"


def undecided(services: Iterable[Row]) -> Iterator[str]:
    """Why a worker decides about the flows of services that want the kernel to, a line per
    reason.
    """
    found: dict[str, list[str]] = {}
    for service in services:
        if _undecided(service):
            found.setdefault(service["why_python"], []).append(service["service"])
    for why, names in found.items():
        yield f"a worker decides for {_names(names)}: {why}"


def _undecided(service: Row) -> bool:
    """Whether a worker decides, against the wish of the file."""
    return service.get("decide") not in (None, "python") and service["decided_by"] == "python"


def _names(names: Sequence[str]) -> str:
    """Some of the ``names``, and how many others there are."""
    others = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {others} more" if others > 0 else "")


def title(service: Row) -> Text:
    """A service in one line: address, forward, strategy, ready backends, adopted connections."""
    ready = f"{service['ready']} of {service['backends']} ready"
    adopted = service.get("adopted") or 0
    return Text.assemble(
        f"{service['service']} {endpoint(service)} {forwarding(service)} {service['strategy']} ",
        (ready, "" if service["ready"] else "red"),
        f", {quantity(adopted)} adopted" if adopted else "",
    )


def state(member: Row) -> Text:
    """The state of a backend."""
    return Text(member["state"], _COLOURS.get(member["state"], "red"))


def up(process: Row) -> Text:
    """The state of a process."""
    return Text("up", "green") if process["up"] else Text("down", "red")


def queue(process: Row) -> tuple[str, str]:
    """The packets waiting in a worker's queues, and those that the kernel dropped."""
    found = [process[name] for name in QUEUE_NAMES if process.get(name)]
    if not found:
        return "-", "-"
    waiting = sum(queue["waiting"] for queue in found)
    return quantity(waiting), quantity(sum(q["overflows"] + q["overruns"] for q in found))


def share(value: float | None) -> str:
    """A ratio as a percentage; "-" for None."""
    return "-" if value is None else f"{value:.0%}"


def endpoint(service: Row) -> str:
    """Protocol, VIP and ports of a service."""
    return f"{service['protocol']} {_end(service['vip'], service['ports'])}"


def quantity(value: int | None) -> str:
    """A number in ipvsadm's short form: 12345 → 12345, 123456 → 123K; "-" for None."""
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
    """The last health check."""
    if check is None:
        return "-"
    outcome = check["code"]
    said = "; ".join(filter(None, (check["detail"], check.get("warning"))))
    detail = f": {said}" if said else ""
    took = check["took"] * 1000
    return f"{outcome} {duration(check['seconds'])} ago in {took:.0f} ms{detail}"


def _end(address: str, port: str | int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _counters(row: Row) -> tuple[str, ...]:
    return tuple(quantity(row[name]) for name in _COUNTERS.values())


def _counter_columns() -> tuple[Column, ...]:
    return tuple(Column(name, right=True, rank=_RANKS.get(name, 0)) for name in _COUNTERS)
