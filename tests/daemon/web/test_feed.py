"""Tests of ``paraglider.daemon.web.feed``: one request at a time for all readers."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from waiting import TIMEOUT

from paraglider.daemon.messages import Message, Refusal, Result, ShowRequest
from paraglider.daemon.web.feed import Feed, of_service
from paraglider.errors import PlatformError


def status(at: float) -> dict[str, Any]:
    """The status of a supervisor without services."""
    return {"at": at, "services": [], "backends": [], "workers": [], "health": {}}


def test_readers_share_a_question() -> None:
    """A hundred readers get the same samples, with one request each."""
    asked: list[Message] = []

    async def ask(request: Message) -> Message:
        asked.append(request)
        return Result(value=status(1_700_000_000 + len(asked)))

    async def read(feed: Feed) -> list[bytes]:
        found, number = [], 0
        while len(found) < 3:
            number, text = await feed.after(number)
            found.append(text)
        return found

    async def main() -> None:
        feed = Feed(ask, {"host": "lb"}, interval=0.01)
        with pytest.raises(PlatformError, match="nothing is known yet"):
            feed.now()
        readers = [asyncio.create_task(read(feed)) for _ in range(100)]
        running = asyncio.create_task(feed.run())
        results = await asyncio.wait_for(asyncio.gather(*readers), TIMEOUT)
        running.cancel()
        assert all(result == results[0] for result in results)
        assert [json.loads(text)["at"] for text in results[0]] == [
            1_700_000_001.0 + i for i in range(3)
        ]
        assert json.loads(results[0][0])["host"] == "lb"
        assert len(asked) <= feed.number + 1
        assert asked[0] == ShowRequest(listener="stats", view="status")
        assert feed.now()["at"] == 1_700_000_000 + feed.number

    asyncio.run(main())


def test_a_hub_that_does_not_answer() -> None:
    """The last sample stays, and the next question follows; a slow answer makes a longer pause."""
    pauses: list[float] = []
    busy = Refusal(error="too many requests", fault="platform")
    answers: list[Any] = [Result(value=status(1.0)), None, busy, Result(value=status(2.0))]

    async def ask(_request: Message) -> Message:
        answer = answers.pop(0)
        await asyncio.sleep(0.02)
        if answer is None:
            raise PlatformError("the supervisor does not answer")
        assert isinstance(answer, Message)
        return answer

    async def main() -> None:
        feed = Feed(ask, {}, interval=0.001)
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(feed.run())
        begin = loop.time()
        await asyncio.wait_for(feed.after(1), TIMEOUT)
        pauses.append(loop.time() - begin)
        running.cancel()
        assert feed.now()["at"] == 2.0
        assert feed.number == 2

    asyncio.run(main())
    assert pauses[0] >= 3 * 10 * 0.02  # three pauses, each ten times the time of the supervisor


def test_of_service() -> None:
    """The rows of one service, or all."""
    rows = [{"service": "a"}, {"service": "b"}]
    assert of_service(rows, None) == rows
    assert of_service(rows, "b") == rows[1:]
    assert of_service(rows, "c") == []


def test_how_late_a_sample_is() -> None:
    """From when the next one was due, while the supervisor does not answer; not before the first,
    nor in the pause.
    """
    ends = asyncio.Event()
    answers: list[Any] = [Result(value=status(1.0))]

    async def ask(_request: Message) -> Message:
        if not answers:
            await ends.wait()
        return cast(Message, answers.pop())

    async def main() -> None:
        feed = Feed(ask, {}, interval=0.05)
        assert feed.late == 0.0
        running = asyncio.create_task(feed.run())
        await asyncio.wait_for(feed.after(0), TIMEOUT)
        assert feed.late == 0.0
        while feed.late < 0.1:
            await asyncio.sleep(0.01)
        answers.append(Result(value=status(2.0)))
        ends.set()
        await asyncio.wait_for(feed.after(1), TIMEOUT)
        await asyncio.sleep(0)
        assert feed.late == 0.0
        running.cancel()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
