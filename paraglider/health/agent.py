"""The agent check, HAProxy's protocol: a program on the backend sets its weight and state.

A connection to a port of the backend gets one line of words, separated by spaces, tabs or commas
(HAProxy's manual, `agent-check`):

    75%                  the weight, in per cent of the configured one
    ready, drain, maint  what an operator would set
    up                   the backend is up
    down, stopped, fail  it is down; what follows a ``#`` is the reason

Lives here: ``AgentAnswer``, ``parse``, and ``ask``, which asks once.
Rules: what a line does not mention stays as it was. Other words are ignored (`maxconn:` too: there
is no such limit here). A line has at most LONGEST bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from paraglider.config.health import AgentCheck, Check
from paraglider.config.payload import unescaped
from paraglider.health.codes import Code
from paraglider.health.probes.base import (
    CheckResult,
    Passed,
    Probe,
    ProbeError,
    ProbeStep,
    run_check,
)
from paraglider.health.probes.exchange import opened, quoted
from paraglider.health.targets import Target

#: most bytes of a line
LONGEST: Final = 1024
#: the largest weight, in per cent
MOST_PERCENT: Final = 1000

Mode = Literal["ready", "drain", "maint"]
_MODES: Final[dict[str, Mode]] = {"ready": "ready", "drain": "drain", "maint": "maint"}
_DOWN: Final = frozenset(("down", "stopped", "fail"))
_PERCENT: Final = re.compile(r"([0-9]{1,4})%")


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What an agent has said: ``weight`` in per cent, ``mode``, ``up``, each None until it says
    something about it; ``detail`` is its last line.
    """

    weight: int | None = None
    mode: Mode | None = None
    up: bool | None = None
    detail: str = ""

    def merged(self, newer: AgentAnswer) -> AgentAnswer:
        """``newer``, with this for what it does not mention."""
        return AgentAnswer(
            self.weight if newer.weight is None else newer.weight,
            newer.mode or self.mode,
            self.up if newer.up is None else newer.up,
            newer.detail,
        )


def parse(line: bytes) -> AgentAnswer:
    """What ``line`` says; raises ValueError if that is nothing."""
    text = line.decode("utf-8", "replace").strip()
    said = AgentAnswer(detail=text)
    for word in re.split(r"[ \t,]+", text.partition("#")[0].lower()):
        percent = _PERCENT.fullmatch(word)
        if percent is not None:
            said = said.merged(AgentAnswer(weight=min(int(percent[1]), MOST_PERCENT), detail=text))
        elif word in _MODES:
            said = said.merged(AgentAnswer(mode=_MODES[word], detail=text))
        elif word == "up" or word in _DOWN:
            said = said.merged(AgentAnswer(up=word == "up", detail=text))
    if said == AgentAnswer(detail=text):
        raise ValueError("no word of the protocol")
    return said


async def ask(target: Target, agent: AgentCheck) -> tuple[AgentAnswer | None, CheckResult]:
    """What the agent of ``target`` says, None if nothing, and the result of asking it."""
    asking = _Asking(agent)
    check = Check(interval=agent.interval, timeout=agent.timeout)
    result = await run_check(asking, target._replace(port=agent.port, check=check))
    return asking.answer, result


class _Asking(Probe):
    """One question; ``answer`` is None until it is answered."""

    name = "agent"

    def __init__(self, agent: AgentCheck) -> None:
        super().__init__()
        self._agent = agent
        self.answer: AgentAnswer | None = None

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Connect, send, read a line, which may end with the connection."""
        async with opened(target, step, LONGEST) as stream:
            if self._agent.send is not None:
                await stream.send(unescaped(self._agent.send))
            line = await stream.last_line()
        try:
            self.answer = parse(line)
        except ValueError as error:
            raise ProbeError(Code.L7RSP, f"{quoted(line)}: {error}") from None
        return Passed(Code.L7OK, self.answer.detail)
