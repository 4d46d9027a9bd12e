"""The screen of `paraglider top`: content, order and size."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.cli.rates import TRAFFIC, rated
from paraglider.cli.top_screen import TopView, handle_key, rate, report, screen_lines, settled

CHECK = {"passed": True, "code": "L4OK", "detail": "connected", "took": 0.001, "seconds": 1.0}


def service(name: str, each: int, ready: int = 3) -> dict[str, Any]:
    """A service with all counters ``each``."""
    fixed = {"vip": "192.168.0.11", "protocol": "tcp", "ports": "80", "forward": "nat"}
    counts = dict.fromkeys(("flows", *TRAFFIC), each)
    return {"service": name, "strategy": "rr", "backends": 3, "ready": ready, **fixed, **counts}


def backend(of: str, name: str, each: int, state: str = "ready") -> dict[str, Any]:
    """A backend with all counters ``each``."""
    counts = dict.fromkeys(("flows", *TRAFFIC), each)
    fixed = {"seconds": 60.0, "weight": 1, "check": CHECK}
    return {"service": of, "backend": name, "state": state, **fixed, **counts}


WORKER = {
    "name": "worker 0 on core 0",
    "up": True,
    "pid": 5,
    "seconds": 60.0,
    "flows": 33,
    "bound": 1000,
    "packets": 500,
    "busy": 0.25,
    "queue": {"waiting": 1, "length": 1024, "overflows": 0, "overruns": 2},
}
AFTER = {
    "services": [service("web", 60), service("dns", 90, ready=1)],
    "backends": [
        *(backend("web", f"10.0.0.{n}", n * 10) for n in (1, 2, 3)),
        backend("dns", "10.0.0.4", 0, "down"),
        backend("dns", "10.0.0.5", 40),
        backend("dns", "10.0.0.6", 50, "drain"),
    ],
    "workers": [WORKER],
    "health": {"healthy": True, "problems": []},
}
BEFORE = {
    **AFTER,
    "services": [service("web", 0), service("dns", 0)],
    "backends": [{**row, **dict.fromkeys(TRAFFIC, 0)} for row in AFTER["backends"]],
    "workers": [{**WORKER, "packets": 0}],
}
STATUS = rated(BEFORE, AFTER, 10.0)


def words(view: TopView) -> list[str]:
    """All lines with single blanks."""
    return [" ".join(text.plain.split()) for text in report(STATUS, view, 200)]


def order(view: TopView) -> list[str]:
    """Services and backends as they follow each other."""
    first = (line.split()[:2] for line in words(view))
    return [a[-1] if a[0] == "->" else a[0] for a in first if a and a[0] in ("->", "web", "dns")]


def test_all_that_there_is() -> None:
    """Totals, services and backends with their rates, state and check, workers. A worker's flows
    include closed ones, which the head does not count.
    """
    lines = words(TopView())
    assert lines[:2] == [
        "paraglider: 2 services, 4 of 6 backends ready, 150 flows, 15 conns/s",
        "in 15 packets/s 15 bytes/s, out 15 packets/s 15 bytes/s",
    ]
    assert "web tcp 192.168.0.11:80 nat rr 3 of 3 ready" in lines
    assert "-> 10.0.0.3 ready 1m0s 1 30 3.0 3.0 3.0 3.0 3.0 L4OK 1s ago in 1 ms: connected" in lines
    assert "worker 0 on core 0 up 1m0s 33 1000 50 25% 1 2" in lines


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("file", ["web", "10.0.0.1"]),
        ("state", ["dns", "10.0.0.4"]),
        *((sort, ["dns", "10.0.0.6"]) for sort in ("flows", "conns", "packets", "bytes")),
    ],
)
def test_orders(sort: str, first: list[str]) -> None:
    """The greatest, or worst, is first, with backends below their service; reversed, last."""
    assert order(TopView(sort))[:2] == first
    backwards = order(TopView(sort, backwards=True))
    assert backwards[0] != first[0]
    assert sorted(backwards) == sorted(order(TopView()))


@pytest.mark.parametrize("width", [1, 20, 40, 80, 160])
@pytest.mark.parametrize("height", [1, 2, 5, 24, 50])
def test_a_frame_fits_its_screen(width: int, height: int) -> None:
    """Never more or longer lines than the screen has, with any content."""
    for note in ("", "no paraglider answers at /run/x; retrying"):
        lines = screen_lines(STATUS, TopView(offset=3), width, height, note)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width


def test_80_columns_have_what_matters() -> None:
    """State, all rates, and whether the last check passed."""
    lines = [line.plain for line in screen_lines(STATUS, TopView(), 80, 24)]
    titles = next(line for line in lines if line.startswith("Service / backend"))
    for title in ("State", "Flows", "Conns/s", "InPkt/s", "OutPkt/s", "InB/s", "OutB/s", "Check"):
        assert title in titles
    assert any("L4OK" in line for line in lines)
    assert lines[-1].startswith("q quit")


def test_what_is_wrong_is_said() -> None:
    """The daemon's problems above everything, a lost daemon below."""
    ill = {**STATUS, "health": {"healthy": False, "problems": ["no backend of `web`", "api"]}}
    lines = [line.plain for line in screen_lines(ill, TopView(), 80, 24, "no answer; retrying")]
    assert lines[2] == "no backend of `web`; api"
    assert lines[-1] == "no answer; retrying"


def test_a_drained_balancer() -> None:
    """Above everything, below the problems."""
    drained = {**STATUS, "health": {"healthy": False, "draining": True, "problems": ["api"]}}
    lines = [line.plain for line in screen_lines(drained, TopView(), 80, 24)]
    assert lines[2:4] == ["api", "draining, not to be announced: `paraglider node ready`"]


def test_scrolling_ends_at_the_end() -> None:
    """The last line stays on the screen at any number of scrolls."""
    view = TopView()
    for _ in range(200):
        view = settled(STATUS, handle_key(view, "j", 5), 80, 10)
    assert view.offset == 8
    lines = [line.plain for line in screen_lines(STATUS, view, 80, 10)]
    assert "worker 0 on core 0" in lines[-2]
    assert "9-14 of 14" in lines[-1]


def test_keys() -> None:
    """Each key has one effect; other keys have none."""
    view = TopView("file", offset=7)
    assert handle_key(view, "c", 9) == TopView("conns")
    assert handle_key(view, "o", 9) == TopView("file")
    assert handle_key(view, "r", 9) == TopView("file", backwards=True, offset=7)
    assert handle_key(view, "w", 9) == TopView("file", workers_first=True)
    assert handle_key(view, "\x1b[6~", 9).offset == 16
    assert handle_key(view, "\x1b[5~", 9).offset == 0
    assert handle_key(view, "\x1b[A", 9).offset == 6
    assert handle_key(view, "g", 9).offset == 0
    for nothing in ("x", "\x1b", "\x1b[Z", "é"):
        assert handle_key(view, nothing, 9) == view


def test_workers_first() -> None:
    """After w they are above the services."""
    lines = words(TopView(workers_first=True))
    assert lines.index("Process State Up Flows Bound Packet/s Busy Queue Drops") == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.0, "0"), (0.54, "0.5"), (9.96, "10"), (12.4, "12"), (250_000.0, "250K")],
)
def test_rate(value: float | None, said: str) -> None:
    """Small ones have a decimal."""
    assert rate(value) == said
