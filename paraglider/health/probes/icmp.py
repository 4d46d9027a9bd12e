"""icmp: whoever answers a ping passes.

Lives here: ``Icmp``.
"""

from __future__ import annotations

from paraglider.health.pinger import Echo
from paraglider.health.probes.base import Step, UnableError
from paraglider.health.targets import Target


class Icmp:
    """The probe; ``echo`` has the sockets, which all pings share, None where there are none."""

    def __init__(self, echo: Echo | None) -> None:
        self._echo = echo

    async def __call__(self, target: Target, step: Step) -> str:
        """Ping the target, and wait for its own answer."""
        step.name = "ping"
        echo = self._echo
        if echo is None:
            raise UnableError("a ping takes CAP_NET_RAW")
        with echo.asking() as question:
            echo.send(question, target.address)
            while target.address not in question.answers:
                question.heard.clear()
                await question.heard.wait()
        return "answered"
