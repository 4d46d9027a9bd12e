"""Tests of ``daemon.controller.readonly_handlers``: requests from the network."""

from __future__ import annotations

from typing import cast

import pytest

from paraglider.daemon.controller.handlers import Handlers, Reply
from paraglider.daemon.controller.readonly_handlers import ReadOnlyHandlers
from paraglider.daemon.messages import (
    AnnounceRequest,
    CarrierRequest,
    FlowsRequest,
    KillRequest,
    Message,
    NodeRequest,
    Refusal,
    ReloadRequest,
    Result,
    SetRequest,
    ShowRequest,
)
from paraglider.daemon.web.token import digest

TOKEN = "t" * 32
DONE = Result(value="done")


class FakeDesk:
    """Handlers that record the requests."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    def handle(self, request: Message, reply: Reply) -> None:
        """Note it."""
        self.asked.append(request)
        reply(DONE)


def taken(request: Message, wanted: bytes | None = None) -> tuple[Message, list[Message]]:
    """The reply to ``request``, and the recorded requests."""
    handlers, replies = FakeDesk(), []
    ReadOnlyHandlers(cast(Handlers, handlers), wanted).handle(request, replies.append)
    (reply,) = replies
    return reply, handlers.asked


def test_status() -> None:
    """Figures it may always have."""
    request = ShowRequest(listener="stats", view="status")
    assert taken(request) == (DONE, [request])


@pytest.mark.parametrize(
    "request_",
    [
        FlowsRequest(listener="stats"),
        KillRequest(listener="stats", all=True),
        ReloadRequest(listener="stats"),
        CarrierRequest(listener="stats", state="off"),
        NodeRequest(listener="stats", state="drain"),
        AnnounceRequest(listener="stats"),
        ShowRequest(listener="stats", view="health", vip="192.0.2.1"),
        ShowRequest(listener="stats", view="services"),
        Result(value=0),
    ],
)
def test_nothing_else(request_: Message) -> None:
    """Flows, a reload, and everything else are refused."""
    reply, asked = taken(request_, digest(TOKEN))
    assert isinstance(reply, Refusal)
    assert (reply.error, asked) == ("there is no such request", [])


def change(token: str | None) -> SetRequest:
    """A change with that token."""
    return SetRequest(
        listener="stats", service="a", backend="b", state="drain", weight=3, token=token
    )


def test_changes() -> None:
    """A change needs the token, if there is one."""
    reply, asked = taken(change(TOKEN))
    assert isinstance(reply, Refusal)
    assert (reply.error, asked) == ("this page changes nothing", [])
    for wrong in (None, "", "t" * 31):
        reply, asked = taken(change(wrong), digest(TOKEN))
        assert isinstance(reply, Refusal)
        assert (reply.error, asked) == ("that is not the token", [])
    assert taken(change(TOKEN), digest(TOKEN)) == (DONE, [change(TOKEN)])
