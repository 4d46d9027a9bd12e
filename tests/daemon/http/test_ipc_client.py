"""Tests of ``paraglider.daemon.http.ipc_client``: a question, and its answer in time."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from paraglider.daemon.http import ipc_client
from paraglider.daemon.http.ipc_client import HubClient, until_told
from paraglider.daemon.processes.channel import Channel, Message
from paraglider.errors import PlatformError


async def heard(hub: Channel, count: int) -> list[Message]:
    """The next ``count`` messages at the hub's end."""
    found: list[Message] = []
    while len(found) < count:
        found += hub.receive()
        await asyncio.sleep(0.01)
    return found


def test_answers_find_their_questions() -> None:
    """Whatever their order; an answer to nothing is passed over."""

    async def main() -> None:
        hub, ours = Channel.pair()
        client = HubClient(ours, lambda _: None)
        asked = [asyncio.create_task(client.ask({"do": name})) for name in ("a", "b")]
        first, second = await asyncio.wait_for(heard(hub, 2), 20)
        assert (first["do"], second["do"]) == ("a", "b")
        hub.send({"re": 99, "ok": 0})
        hub.send({"re": second["id"], "ok": 2})
        hub.send({"re": first["id"], "ok": 1})
        answers = await asyncio.wait_for(asyncio.gather(*asked), 20)
        assert [answer["ok"] for answer in answers] == [1, 2]
        hub.close()

    asyncio.run(main())


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while who asks is told so."""
    monkeypatch.setattr(ipc_client, "PATIENCE", 0.05)

    async def main() -> None:
        hub, ours = Channel.pair()
        client = HubClient(ours, lambda _: None)
        with pytest.raises(PlatformError, match="the hub does not answer"):
            await client.ask({"do": "a"})
        hub.close()

    asyncio.run(main())


def test_a_hub_that_is_gone() -> None:
    """It ends the process, in good order; what is no message ends it otherwise."""

    async def main(*, garbage: bool) -> int:
        hub, ours = Channel.pair()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        client = HubClient(ours, ended.set_result)
        assert client is not None
        if garbage:
            hub._socket.send(b"\xff" * 100)
        hub.close()
        return await asyncio.wait_for(ended, 20)

    assert asyncio.run(main(garbage=False)) == 0
    assert asyncio.run(main(garbage=True)) == PlatformError.exit_code


def test_the_end_is_told_once_and_by_sigterm_too() -> None:
    """The first exit code counts; SIGTERM is an end without fault."""

    async def first() -> int:
        ended, end = until_told()
        end(3)
        end(0)
        return await ended

    async def told() -> int:
        ended, _ = until_told()
        os.kill(os.getpid(), signal.SIGTERM)
        return await ended

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert asyncio.run(first()) == 3
        assert asyncio.run(told()) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
