"""udp: a backend passes if it answers the datagrams of the `steps` as expected.

Lives here: ``Udp``.
Rules: each `expect` is compared with one datagram. A datagram that is lost is a check that failed;
`fall` decides how many of them count. ICMP port unreachable is a refused connection (L4CON).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.config.payload import unescaped
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep, UnableError
from paraglider.health.probes.exchange import connect, last_expects, matched, quoted
from paraglider.health.targets import Target

#: the largest datagram
_LARGEST: Final = 65535


class Udp(Probe):
    """Sends datagrams to the target's port, and compares the answers."""

    name = "udp"
    summary = "answers the datagram of each of the `steps` as expected"
    keys = frozenset({"port", "steps"})
    needs_port = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """Steps, which begin with a datagram and end with an answer."""
        if not check.steps:
            what = "`type: udp` without `steps`: a port of UDP that is open says nothing"
            remedy = "add `steps: [{send: 'ping', expect: pong}]`, what it answers"
            yield Problem((*path, "type"), what, remedy, needs=((*path, "steps"),))
        elif check.steps[0].send is None:
            what, remedy = "the first step sends nothing", "add `send: 'ping'`"
            yield Problem((*path, "steps", 0), what, remedy, needs=((*path, "type"),))
        yield from last_expects(path, check)

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Send, receive, compare."""
        steps = target.check.steps if target.check is not None else None
        if not steps:
            raise UnableError("there are no steps")
        loop, answer = asyncio.get_running_loop(), b""
        with await connect(target.address, target.port, socket.SOCK_DGRAM) as sock:
            step.timeout = Code.L7TOUT
            for number, each in enumerate(steps, 1):
                step.name = f"step {number}"
                if each.send is not None:
                    await loop.sock_sendall(sock, unescaped(each.send))
                if each.expect is not None:
                    answer = await loop.sock_recv(sock, _LARGEST)
                    if not matched(each.expect, answer):
                        line = f"step {number}: {quoted(answer)} does not match {each.expect!r}"
                        raise ProbeError(Code.L7RSP, line)
        return Passed(Code.L7OK, f"received {quoted(answer)}")
