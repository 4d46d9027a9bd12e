"""The agents of all targets: each is asked at its interval, and what changes is reported.

Lives here: ``Agents``.
Rules: an agent that does not answer changes nothing, as in HAProxy: that the backend serves is the
check's to find out. Each answer adds to those before; a process that starts anew asks at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from paraglider.config.health import AgentCheck
from paraglider.health.agent import AgentAnswer, ask
from paraglider.health.results import AgentReport
from paraglider.health.targets import Key, Target
from paraglider.health.tasks import GuardedTasks


@dataclass(slots=True)
class _Asked:
    """A target and its agent; ``reported`` is the last report, without its time."""

    target: Target
    agent: AgentCheck
    said: AgentAnswer
    task: asyncio.Task[None] | None = None
    reported: AgentReport | None = None


class Agents:
    """Asks the agents by ``tasks``, in ``slots``; ``notify`` takes what they say, ``on_verdict`` a
    target whose agent says that it is up or down. ``chance`` is for tests.
    """

    def __init__(
        self,
        notify: Callable[[AgentReport], None],
        on_verdict: Callable[[Key, str, float], None],
        slots: asyncio.Semaphore,
        tasks: GuardedTasks,
        chance: Callable[[], float],
    ) -> None:
        self._notify = notify
        self._on_verdict = on_verdict
        self._slots = slots
        self._tasks = tasks
        self._chance = chance
        self._asked: dict[Key, _Asked] = {}

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The running tasks."""
        return [asked.task for asked in self._asked.values() if asked.task is not None]

    def up(self, key: Key) -> bool:
        """Whether no agent says that the target is down."""
        asked = self._asked.get(key)
        return asked is None or asked.said.up is not False

    def update(self, target: Target) -> None:
        """Ask the agent of ``target`` from now on, or no more."""
        known = self._asked.get(target.key)
        if target.agent is None:
            self.forget(target.key)
        elif known is not None:
            known.target, known.agent = target, target.agent
        else:
            # Without a check only its agent can have said that it is down.
            said = AgentAnswer(up=None if target.check is not None else target.up)
            asked = self._asked[target.key] = _Asked(target, target.agent, said)
            asked.task = self._tasks.spawn(self._ask(asked))

    def forget(self, key: Key) -> None:
        """Ask the agent of ``key`` no more."""
        asked = self._asked.pop(key, None)
        if asked is not None and asked.task is not None:
            asked.task.cancel()

    async def _ask(self, asked: _Asked) -> None:
        """Ask one agent until its task is cancelled."""
        while True:
            async with self._slots:
                answer, result = await ask(asked.target, asked.agent)
            now, key = time.monotonic(), asked.target.key
            if answer is not None:
                asked.said = asked.said.merged(answer)
            said, passed = asked.said, answer is not None
            report = AgentReport(*key, passed, result.code, result.detail, said.weight, said.mode)
            if report != asked.reported:
                asked.reported = report
                self._notify(report._replace(at=now))
            if answer is not None and answer.up is not None:
                self._on_verdict(key, f"agent: {result.detail}", now)
            await asyncio.sleep(asked.agent.interval * (1 - 0.1 * self._chance()))
