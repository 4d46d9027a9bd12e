"""The log of new flows: one line each, bounded, without packet content."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.tracing import Decision
from paraglider.daemon.workers.flow_log import MOST, FlowLog

BACKEND = Backend("10.0.0.1", bytes(4))


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def debug(self, event: str, **words: Any) -> None:
        """Keep a line."""
        self.lines.append({"event": event, **words})


def decision(client: str = "192.0.2.7", vip: str = "192.0.2.80") -> Decision:
    """A decision about a flow from port 4000 to port 80."""
    ends = b"".join(ipaddress.ip_address(end).packed for end in (client, vip))
    return Decision("web", TCP, ends + b"\x0f\xa0\0\x50", BACKEND, "rr, of 3 ready")


@pytest.mark.parametrize(
    ("client", "vip"), [("192.0.2.7", "192.0.2.80"), ("2001:db8::7", "2001:db8::80")]
)
def test_a_line_a_flow(client: str, vip: str) -> None:
    """Both ends, service, backend and reason."""
    lines = Lines()
    FlowLog(lines)(decision(client, vip))
    assert lines.lines == [
        {
            "event": "new flow",
            "service": "web",
            "protocol": "tcp",
            "client": client,
            "client_port": 4000,
            "vip": vip,
            "port": 80,
            "backend": "10.0.0.1",
            "why": "rr, of 3 ready",
        }
    ]


def test_a_flood_is_bounded_and_counted() -> None:
    """A bounded number of lines per second; the first line of a later second has the number of
    omitted ones.
    """
    now = 5.0
    lines = Lines()
    log = FlowLog(lines, lambda: now)
    for _ in range(MOST + 50):
        log(decision())
    assert len(lines.lines) == MOST
    now = 6.5
    log(decision())
    log(decision())
    assert [line.get("held_back") for line in lines.lines[MOST:]] == [50, None]
