"""Requests of http: which ones clients of the page may make, and that no client acts as another."""

from __future__ import annotations

from typing import Any, cast

import pytest
import structlog

from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.controller.handlers import Handlers, Reply
from paraglider.daemon.controller.http_requests import HttpRequests
from paraglider.daemon.messages import (
    ClientRequest,
    KillRequest,
    Message,
    Refusal,
    ReloadRequest,
    Result,
    ShowRequest,
)

OURS = ShowRequest(listener="control", connection=3, view="health")
KILL = KillRequest(listener="control", connection=3, all=True)


class Carried:
    """Handlers that note what they carry out."""

    def __init__(self) -> None:
        self.requests: list[Message] = []

    def handle(self, request: Message, reply: Reply) -> None:
        """See ``Handlers``."""
        self.requests.append(request)
        reply(Result(value="done"))


class Clients:
    """One client, which has asked for ``OURS``."""

    def requested(self, request: ClientRequest) -> bool:
        """See ``ControlConnections``."""
        return request == OURS


@pytest.mark.parametrize(
    ("request_", "control", "done"),
    [
        (OURS, True, True),
        (KILL, True, False),
        (ReloadRequest(listener="control"), True, False),
        (OURS, False, False),
        (ShowRequest(listener="stats", view="status"), True, True),
        (KillRequest(listener="stats", connection=3, all=True), True, False),
    ],
)
def test_which_are_carried_out(request_: ClientRequest, control: bool, done: bool) -> None:
    """Those that a client made, and of the page the status; every request is answered."""
    carried = Carried()
    clients: Any = cast(ControlConnections, Clients()) if control else None
    replies: list[Message] = []
    with structlog.testing.capture_logs() as said:
        requests = HttpRequests(cast(Handlers, carried), None, clients)
        requests.handle(request_, replies.append)
    assert carried.requests == ([request_] if done else [])
    assert [type(reply) for reply in replies] == [Result if done else Refusal]
    forged = not done and request_.listener == "control"
    assert [line["event"] for line in said] == (
        ["control socket: request refused, no client made it"] if forged else []
    )
