"""Tests of ``daemon.controller.readonly_handlers``: what the process of the stats page may ask."""

from __future__ import annotations

from typing import Any, cast

import pytest

from paraglider.daemon.controller.handlers import Handlers, Reply
from paraglider.daemon.controller.readonly_handlers import ReadOnlyHandlers
from paraglider.daemon.processes.channel import Message
from paraglider.daemon.web.token import digest

TOKEN = "t" * 32


class FakeDesk:
    """A desk that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    def take(self, request: Message, reply: Reply) -> None:
        """Note it."""
        self.asked.append(request)
        reply({"ok": "done"})


def taken(request: Message, wanted: bytes | None = None) -> tuple[Message, list[Message]]:
    """The reply to ``request``, and what the desk was asked."""
    desk, replies = FakeDesk(), []
    ReadOnlyHandlers(cast(Handlers, desk), wanted).take(request, replies.append)
    (reply,) = replies
    return reply, desk.asked


def test_status() -> None:
    """How things are it may always know, and no word of its own gets through."""
    reply, asked = taken({"do": "status", "id": 7, "limit": 5})
    assert (reply, asked) == ({"ok": "done"}, [{"do": "status"}])


@pytest.mark.parametrize("do", ["flows", "kill", "services", "sets", None, 3, []])
def test_nothing_else(do: Any) -> None:
    """Flows, and everything else, are not its to ask."""
    reply, asked = taken({"do": do, "all": True, "token": TOKEN}, digest(TOKEN))
    assert reply["error"] == "there is no such request"
    assert asked == []


def test_changes() -> None:
    """A change needs the token, where there is one; only its own words are handed on."""
    change = {"do": "set", "service": "a", "backend": "b", "state": "drain", "weight": 3}
    reply, asked = taken({**change, "token": TOKEN})
    assert (reply["error"], asked) == ("this page changes nothing", [])
    for wrong in (None, "", "t" * 31, 5):
        reply, asked = taken({**change, "token": wrong}, digest(TOKEN))
        assert (reply["error"], asked) == ("that is not the token", [])
    reply, asked = taken({**change, "token": TOKEN, "all": True}, digest(TOKEN))
    assert (reply, asked) == ({"ok": "done"}, [change])
