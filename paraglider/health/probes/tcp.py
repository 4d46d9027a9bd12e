"""tcp: a backend passes if it accepts a connection, and answers its `steps` as expected.

Lives here: ``Tcp``.
Rules: without steps nothing is sent and nothing is read; the connection is closed as soon as it is
established. Each `expect` is compared with what came since the last one that matched, and passes as
soon as it matches; what came is thrown away then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.config.payload import unescaped
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeStep
from paraglider.health.probes.exchange import (
    Stream,
    connected,
    last_expects,
    matched,
    opened,
    quoted,
)
from paraglider.health.targets import Target

#: seconds between two searches of an answer that comes in small pieces
_PAUSE: Final = 0.01


class Tcp(Probe):
    """Connects to the target's port, and goes through the steps."""

    name = "tcp"
    summary = "accepts a connection, and answers each of the `steps` as expected"
    keys = frozenset({"port", "steps"})
    needs_port = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """The last step has to expect something."""
        yield from last_expects(path, check)

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Connect, send, compare."""
        steps = target.check.steps if target.check is not None else None
        if not steps:
            await connected(target.address, target.port)
            return Passed(Code.L4OK, "connected")
        answer = b""
        async with opened(target, step) as stream:
            for number, each in enumerate(steps, 1):
                step.name = f"step {number}"
                if each.send is not None:
                    await stream.send(unescaped(each.send))
                if each.expect is not None:
                    answer = await _answer(stream, each.expect, step)
        return Passed(Code.L7OK, f"received {quoted(answer)}")


async def _answer(stream: Stream, expect: str, step: ProbeStep) -> bytes:
    """What came until it matched ``expect``."""
    name = step.name
    while not matched(expect, stream.received):
        if stream.received:
            step.name = f"{name}, after {quoted(stream.received)},"
            await asyncio.sleep(_PAUSE)
        await stream.more()
    step.name = name
    return await stream.exactly(len(stream.received))
