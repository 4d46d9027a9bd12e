"""Tests of ``paraglider.daemon.monitor.ipc_endpoint``: orders in, news out, and each way to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from paraglider.daemon.monitor.ipc_endpoint import Mouth, serve
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.spec import READY

PATIENCE = 20


class Subject:
    """Notes its orders; one that says `fail` breaks it."""

    def __init__(self) -> None:
        self.broken: asyncio.Future[None] | None = None
        self.orders: list[Mapping[str, Any]] = []
        self.closed = False

    async def start(self) -> None:
        """See ``mouth.Busy``."""
        self.broken = asyncio.get_running_loop().create_future()

    def take(self, order: Mapping[str, Any]) -> None:
        """See ``mouth.Busy``."""
        self.orders.append(order)
        if order["do"] == "fail" and self.broken is not None:
            self.broken.set_exception(ZeroDivisionError())

    async def close(self) -> None:
        """See ``mouth.Busy``."""
        self.closed = True


def served(play: Callable[[Channel, Subject, Mouth], None]) -> tuple[int, Subject]:
    """The exit code of a process whose hub does what ``play`` does once it is ready."""
    ours, theirs = Channel.pair()
    reading, writing = os.pipe()
    subject, mouth = Subject(), Mouth(theirs, "test")

    async def hub() -> None:
        while subject.broken is None:
            await asyncio.sleep(0.001)
        play(ours, subject, mouth)

    async def whole() -> int:
        task = asyncio.create_task(hub())
        async with asyncio.timeout(PATIENCE):
            status = await serve(subject, mouth, writing)
            await task
        return status

    try:
        status = asyncio.run(whole())
        assert os.read(reading, 100) == READY
    finally:
        os.close(reading)
        ours.close()
        theirs.close()
    assert subject.closed
    return status, subject


def test_ends_when_it_is_asked_to() -> None:
    """With the status that it is ended with."""
    status, _ = served(lambda _hub, _subject, mouth: mouth.finish(0))
    assert status == 0


def test_the_hub_is_gone() -> None:
    """What was said before is done, and then it ends."""

    def play(hub: Channel, subject: Subject, mouth: Mouth) -> None:
        hub.send({"do": "look"})
        hub.close()

    status, subject = served(play)
    assert status == 2
    assert subject.orders == [{"do": "look"}]


def test_what_is_no_order() -> None:
    """An order that it cannot take ends it."""
    status, _ = served(lambda hub, *_: hub.send({"nothing": 0}))
    assert status == 2


def test_what_nobody_foresaw() -> None:
    """An error of its own is raised, when all is closed."""
    with pytest.raises(ZeroDivisionError):
        served(lambda hub, *_: hub.send({"do": "fail"}))


def test_more_than_there_is_room_for() -> None:
    """What it has to say waits for the hub to read, and none of it is lost."""
    said = [{"number": number, "words": "x" * 10_000} for number in range(100)]
    heard: list[dict[str, Any]] = []

    def play(hub: Channel, subject: Subject, mouth: Mouth) -> None:
        for news in said:
            mouth.tell(news)

        def read() -> None:
            heard.extend(hub.receive())
            if len(heard) == len(said):
                asyncio.get_running_loop().remove_reader(hub.fileno())
                mouth.finish(0)

        asyncio.get_running_loop().add_reader(hub.fileno(), read)

    status, _ = served(play)
    assert (status, heard) == (0, said)
