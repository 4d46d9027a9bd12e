"""A process without rights asks the hub: each gets its own answer, in time or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from paraglider.control import hub_client
from paraglider.control.channel import Channel, Message
from paraglider.control.hub_client import HubClient
from paraglider.errors import PlatformError


class Line:
    """Both ends; ``ended`` are the exit codes that the client wanted."""

    def __init__(self) -> None:
        self.hub, theirs = Channel.pair()
        self.ended: list[int] = []
        self.client = HubClient(theirs, self.ended.append)

    async def heard(self, count: int) -> list[Message]:
        """The first ``count`` requests that came to the hub."""
        found: list[Message] = []
        while len(found) < count:
            found += self.hub.receive()
            await asyncio.sleep(0)
        return found

    async def until_ended(self) -> None:
        """Until the client wants the process to end."""
        async with asyncio.timeout(30):
            while not self.ended:
                await asyncio.sleep(0)


def talk(what: Callable[[Line], Awaitable[None]]) -> None:
    """Have a talk."""

    async def run() -> None:
        await what(Line())

    asyncio.run(run())


def test_each_gets_its_own_answer() -> None:
    """In whatever order they come; what nobody waits for is passed over."""

    async def what(line: Line) -> None:
        first = asyncio.create_task(line.client.ask({"do": "a"}))
        second = asyncio.create_task(line.client.ask({"do": "b"}))
        one, two = await line.heard(2)
        assert (one["do"], two["do"]) == ("a", "b")
        line.hub.send({"re": 999, "ok": 0})
        line.hub.send({"ok": 0})
        line.hub.send({"re": two["id"], "ok": 2})
        line.hub.send({"re": one["id"], "ok": 1})
        line.hub.send({"re": one["id"], "ok": 3})
        assert (await first)["ok"] == 1
        assert (await second)["ok"] == 2
        assert line.ended == []

    talk(what)


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of the platform, and an answer that comes later is nobody's."""
    monkeypatch.setattr(hub_client, "PATIENCE", 0.01)

    async def what(line: Line) -> None:
        with pytest.raises(PlatformError, match="the hub does not answer"):
            await line.client.ask({"do": "a"})
        (late,) = await line.heard(1)
        monkeypatch.setattr(hub_client, "PATIENCE", 30)
        line.hub.send({"re": late["id"], "ok": "late"})
        asked = asyncio.create_task(line.client.ask({"do": "b"}))
        (one,) = await line.heard(1)
        line.hub.send({"re": one["id"], "ok": "now"})
        assert (await asked)["ok"] == "now"

    talk(what)


def test_a_long_request_waits_for_room() -> None:
    """More than the socket takes at once arrives whole."""

    async def what(line: Line) -> None:
        asked = asyncio.create_task(line.client.ask({"do": "x" * 900_000}))
        (one,) = await line.heard(1)
        assert len(one["do"]) == 900_000
        line.hub.send({"re": one["id"]})
        await asked

    talk(what)


def test_the_end_of_the_hub_ends_the_process() -> None:
    """Well, for that is how a daemon stops."""

    async def what(line: Line) -> None:
        line.hub.close()
        await line.until_ended()
        assert set(line.ended) == {0}

    talk(what)


def test_garbage_ends_it_badly() -> None:
    """It is then replaced."""

    async def what(line: Line) -> None:
        line.hub._socket.send(b"\xff" * 64)
        await line.until_ended()
        assert line.ended[0] == PlatformError.exit_code

    talk(what)
