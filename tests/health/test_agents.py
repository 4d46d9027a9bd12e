"""Tests of ``paraglider.health.agents``: agents beside checks, in the checker."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from waiting import TIMEOUT

from paraglider.config.health import AgentCheck, Check
from paraglider.core.pool import Event
from paraglider.health.checker import Checker
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep
from paraglider.health.results import AgentReport, CheckReport, HealthChange
from paraglider.health.targets import Target

LOCAL = ipaddress.ip_address("127.0.0.1")


class Tells(Probe):
    """Passes while ``passes``."""

    passes = True

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Pass, or not."""
        if not self.passes:
            raise ProbeError(Code.L4CON, "refused")
        return Passed(Code.L4OK, "connected")


class World:
    """A checker, an agent that says ``line`` (empty: it closes at once), and what is reported."""

    def __init__(self) -> None:
        self.line = b""
        self.questions = 0
        self.probe = Tells()
        self.news: asyncio.Queue[Any] = asyncio.Queue()
        self.checker = Checker(self.news.put_nowait, probes={"tcp": self.probe})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The agent."""
        self.questions += 1
        writer.write(self.line)
        writer.close()

    async def next(self, kind: type[Any]) -> Any:
        """The next news of a kind."""
        async with asyncio.timeout(TIMEOUT):
            while not isinstance(news := await self.news.get(), kind):
                pass
        return news


def run(body: Callable[[World, Target], Awaitable[None]]) -> None:
    """Run ``body`` with a world, and the target with check and agent."""

    async def main() -> None:
        world = World()
        server = await asyncio.start_server(world.serve, "127.0.0.1", 0)
        agent = AgentCheck(port=server.sockets[0].getsockname()[1], interval=0.1, timeout=30)
        check = Check(interval=0.1, timeout=30, rise=1, fall=1)
        await world.checker.start()
        try:
            await body(world, Target("web", "a", LOCAL, 80, check, agent=agent))
        finally:
            await world.checker.close()
            server.close()

    asyncio.run(main())


def test_what_changes_is_reported() -> None:
    """The first answer and each other one; what it does not mention stays."""

    async def body(world: World, target: Target) -> None:
        world.line = b"50% drain\n"
        world.checker.update((target,))
        first = await world.next(AgentReport)
        assert (first.weight, first.mode, first.code, first.detail) == (
            50,
            "drain",
            Code.L7OK,
            "50% drain",
        )
        assert first.at > 0
        asked = world.questions
        while world.questions < asked + 3:
            await world.next(CheckReport)
        world.line = b"ready\n"
        second = await world.next(AgentReport)
        assert (second.weight, second.mode, second.detail) == (50, "ready", "ready")
        world.line = b""
        third = await world.next(AgentReport)
        assert (third.weight, third.mode, third.answered) == (50, "ready", False)
        assert third.detail == "closed the connection without an answer"

    run(body)


def test_both_have_to_be_up() -> None:
    """A backend is up while neither its check nor its agent says that it is down; an agent that no
    longer answers changes nothing.
    """

    async def body(world: World, target: Target) -> None:
        world.line = b"down#backup runs\n"
        world.checker.update((target,))
        change = await world.next(HealthChange)
        assert change.event is Event.CHECK_FAILED
        assert change.detail == "agent: down#backup runs"
        world.line = b""
        while (await world.next(AgentReport)).answered:
            pass
        world.probe.passes = False
        while (await world.next(CheckReport)).passed:
            pass
        world.line = b"up\n"
        while not (await world.next(AgentReport)).answered:
            pass
        assert world.news.empty() or not isinstance(world.news.get_nowait(), HealthChange)
        world.probe.passes = True
        change = await world.next(HealthChange)
        assert (change.event, change.detail) == (Event.CHECK_PASSED, "L4OK: connected")

    run(body)


def test_without_a_check() -> None:
    """An agent alone decides; what a monitor before this one was told holds until it answers."""

    async def body(world: World, target: Target) -> None:
        alone = target._replace(check=None, up=False)
        world.line = b"up\n"
        world.checker.update((alone,))
        assert world.news.empty()
        change = await world.next(HealthChange)
        assert (change.event, change.detail) == (Event.CHECK_PASSED, "agent: up")

    run(body)


def test_an_agent_that_is_removed() -> None:
    """It is asked no more, and what it said about the backend's health ends."""

    async def body(world: World, target: Target) -> None:
        world.line = b"down\n"
        world.checker.update((target,))
        assert (await world.next(HealthChange)).event is Event.CHECK_FAILED
        world.checker.update((target._replace(agent=None),))
        assert (await world.next(HealthChange)).event is Event.CHECK_PASSED
        asked = world.questions
        for _ in range(5):
            await world.next(CheckReport)
        assert world.questions <= asked + 1  # one may have been on its way

    run(body)
