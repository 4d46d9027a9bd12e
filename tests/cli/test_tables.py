"""The tables of a running daemon: from its answers to lines."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.cli import tables
from paraglider.cli.listing import TextTable

COUNTS = {
    "flows": 3,
    "inactive": 6,
    "conns": 120_000,
    "packets_in": 900,
    "packets_out": 800,
    "bytes_in": 70_000,
    "bytes_out": 123_456_789,
}
UNKNOWN = dict.fromkeys(COUNTS)
CHECK = {"passed": True, "code": "L7OK", "detail": "status 200", "took": 0.0124, "seconds": 3.9}


def service(name: str = "web", **changes: Any) -> dict[str, Any]:
    """A service as in the control socket's answer."""
    return {
        "service": name,
        "vip": "192.168.0.11",
        "protocol": "tcp",
        "ports": "80",
        "forward": "nat",
        "strategy": "wrr",
        "affinity": "flow",
        "backends": 2,
        "ready": 1,
        **COUNTS,
        **changes,
    }


def backend(name: str, of: str = "web", **changes: Any) -> dict[str, Any]:
    """A backend as in the control socket's answer."""
    return {
        "service": of,
        "backend": name,
        "state": "ready",
        "seconds": 3725.2,
        "weight": 5,
        "check": None,
        **COUNTS,
        **changes,
    }


def lines(listing: TextTable) -> list[str]:
    """Its lines with single blanks."""
    return [" ".join(text.plain.split()) for text in listing.texts(300)]


def test_the_balance_is_shaped_like_that_of_ipvsadm() -> None:
    """A service with its sums, and below it its backends with state and last check."""
    listing = tables.balance(
        [service(), service("six", vip="2001:db8::11", ready=0, **UNKNOWN)],
        [
            backend("10.0.0.1", check=CHECK),
            backend("[fd00::1]:8080", "six", state="down", weight=1, **UNKNOWN),
            backend("10.0.0.2", state="drain"),
        ],
    )
    assert lines(listing) == [
        (
            "Service / backend State Since Weight Flows InAct Conns InPkts OutPkts InBytes OutBytes"
            " Last check"
        ),
        "web tcp 192.168.0.11:80 nat wrr 1 of 2 ready",
        "all 3 6 120K 900 800 70000 123M",
        "-> 10.0.0.1 ready 1h2m 5 3 6 120K 900 800 70000 123M L7OK 3s ago in 12 ms: status 200",
        "-> 10.0.0.2 drain 1h2m 5 3 6 120K 900 800 70000 123M -",
        "six tcp [2001:db8::11]:80 nat wrr 0 of 2 ready",
        "all - - - - - - -",
        "-> [fd00::1]:8080 down 1h2m 1 - - - - - - - -",
    ]


@pytest.mark.parametrize(
    ("width", "there"),
    [(80, ("State", "Weight", "Conns", "InBytes", "Last check")), (120, ("InPkts", "Since"))],
)
def test_a_terminal_is_wide_enough(width: int, there: tuple[str, ...]) -> None:
    """At 80 columns the packets are omitted and the check is truncated; at 120 all is shown."""
    listing = tables.balance([service()], [backend("[fd00:10::12]:8080", check=CHECK)])
    head, *rest = listing.texts(width)
    assert all(title in head.plain for title in there)
    assert max(text.cell_len for text in rest) <= width
    assert "L7OK 3s" in rest[-1].plain


def test_services() -> None:
    """A line a service."""
    assert lines(tables.services([service()]))[1] == (
        "web tcp 192.168.0.11:80 nat wrr flow 1/2 3 6 120K 900 800 70000 123M"
    )


def test_flows() -> None:
    """One line per flow; one of a removed service is marked."""
    flow = {
        "service": None,
        "protocol": "tcp",
        "client": "2001:db8::5",
        "client_port": 4000,
        "vip": "2001:db8::11",
        "port": 80,
        "backend": "fd00::1",
        "state": "established",
        "idle": 61.5,
    }
    ends = "tcp [2001:db8::5]:4000 [2001:db8::11]:80 fd00::1 established"
    carried = {**flow, "service": "web", "carrier": "bpf", "packets_in": 7, "packets_out": 0}
    assert lines(tables.flows([flow, carried]))[1:] == [
        f"(gone) {ends} - - - 1m1s",
        f"web {ends} bpf 7 0 1m1s",
    ]


def test_the_carrier_of_a_service_stands_beside_its_method() -> None:
    """Where it is BPF; the worker is what everybody expects."""
    rows = [service(carrier="bpf"), service(carrier="worker"), service(carrier=None)]
    assert [line.split()[2:4] for line in lines(tables.services(rows))[1:]] == [
        ["192.168.0.11:80", "nat"]
    ] * 3
    assert "nat (bpf) wrr" in lines(tables.services(rows))[1]
    assert "nat (bpf) wrr" in tables.title(rows[0]).plain
    decided = service(carrier="bpf", decided_by="kernel")
    assert "nat (bpf, kernel decides) wrr" in tables.title(decided).plain
    undecided = service(carrier="bpf", decide="auto", decided_by="python", why_python="x")
    assert "nat (bpf, worker decides) wrr" in tables.title(undecided).plain
    wanted = service(carrier="bpf", decide="python", decided_by="python", why_python="x")
    assert "nat (bpf) wrr" in tables.title(wanted).plain
    assert "(" not in tables.title(rows[1]).plain


def test_why_a_worker_decides() -> None:
    """A line a reason, where the file wants the kernel to; of many services some are named."""

    def row(name: str, decide: str | None, by: str | None, why: str | None) -> dict[str, Any]:
        return {"service": name, "decide": decide, "decided_by": by, "why_python": why}

    rows = [
        row("a", "auto", "python", "it has affinity"),
        row("b", "auto", "kernel", ""),
        row("c", "python", "python", "`decide: python`"),
        row("d", None, None, None),
        {"service": "e"},  # of a daemon that is older
        *(row(f"s{n}", "hash", "python", "no room") for n in range(tables.MOST_NAMES + 2)),
        row("f", "auto", "python", "it has affinity"),
    ]
    first, second = tables.undecided(rows)
    assert first == "a worker decides for a, f: it has affinity"
    assert second.startswith("a worker decides for s0, s1, ")
    assert second.endswith(f"s{tables.MOST_NAMES - 1} and 2 more: no room")
    answer = {"carrier": "bpf", "reason": "", "able": False, "services": rows[:4]}
    assert list(tables.carrier(answer)) == [
        "bpf",
        "the kernel decides for b",
        "a worker decides for a: it has affinity",
    ]


def test_what_carries() -> None:
    """The carrier with its reason; interfaces and flows only where BPF can."""
    answer = {"carrier": "worker", "reason": "no libbpf", "able": False}
    assert list(tables.carrier(answer)) == ["worker: no libbpf"]
    able = {"carrier": "bpf", "reason": "", "able": True, "devices": [], "flows": 3, "refused": 0}
    assert list(tables.carrier(able)) == [
        "bpf",
        "interfaces: none",
        "flows carried by BPF: 3, refused by the kernel: 0",
    ]
    assert list(tables.carrier({**able, "lacks": {"web": "no source of a route"}}))[:2] == [
        "bpf",
        "workers carry web: no source of a route",
    ]
    assert list(tables.carrier({**able, "failed": {"eth1": "busy"}}))[1:3] == [
        "interfaces: none",
        "not attached to eth1: busy",
    ]
    packets = tables.carrier_packets({"syn": 5, "vlan": 0, "carried": 123_456})
    assert lines(packets) == ["Reason Packets", "carried 123456", "syn 5"]


def test_processes() -> None:
    """A line a process, whether it serves or is yet to come back."""
    worker = {
        "name": "worker 0 on core 1",
        "up": True,
        "pid": 77,
        "filter": "worker",
        "carrier": "bpf",
        "seconds": 5.0,
        "active": 9,
        "closing": 20,
        "half_open": 3,
        "packets": 1000,
        "busy": 0.256,
        "queue": {"waiting": 4, "length": 1024, "overflows": 2, "overruns": 1},
        "openings": {"waiting": 5, "length": 512, "overflows": 6, "overruns": 0},
        "counts": {"expired": 3, "no-flow": 1},
    }
    gone = {"name": "api", "up": False, "pid": None, "seconds": None}
    assert lines(tables.processes([worker, gone]))[1:] == [
        "worker 0 on core 1 up 77 worker bpf 5s 9 20 3 1000 26% 9 9 expired=3 no-flow=1",
        "api down - - - - - - - - - - -",
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (0, "0"),
        (99_999, "99999"),
        (100_000, "100K"),
        (10**8, "100M"),
        (10**18, "1000000T"),
    ],
)
def test_quantity(value: int | None, words: str) -> None:
    """Five digits at most, as ipvsadm has it, until the units end."""
    assert tables.quantity(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.9, "0s"), (59, "59s"), (60, "1m0s"), (3600, "1h0m"), (90_061, "1d1h")],
)
def test_duration(seconds: float, words: str) -> None:
    """The two largest units."""
    assert tables.duration(seconds) == words


def test_a_failed_check_has_its_reason() -> None:
    """The reason of the last check is the last column."""
    check = {
        "passed": False,
        "code": "L4CON",
        "detail": "connection refused",
        "took": 0.0,
        "seconds": 1,
    }
    assert tables.checked(check) == "L4CON 1s ago in 0 ms: connection refused"
    assert tables.checked({**check, "detail": ""}) == "L4CON 1s ago in 0 ms"
    warned = {**check, "detail": "status 200", "warning": "certificate expires on 2030-01-01"}
    assert tables.checked(warned).endswith(": status 200; certificate expires on 2030-01-01")
