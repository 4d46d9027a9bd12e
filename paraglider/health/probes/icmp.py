"""icmp: a backend passes that answers a ping.

Lives here: ``Icmp``. The field has no code for a ping: layer 4 is the lowest that HAProxy knows.
"""

from __future__ import annotations

from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeStep, UnableError
from paraglider.health.targets import Target


class Icmp(Probe):
    """Pings the target through the sockets that all pings share."""

    name = "icmp"
    summary = "answers a ping"
    needs_raw_socket = True

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Ping, and wait for the target's own answer."""
        step.name = "ping"
        echo = self.echo
        if echo is None:
            raise UnableError("a ping takes CAP_NET_RAW")
        with echo.asking() as question:
            echo.send(question, target.address)
            while target.address not in question.answers:
                question.heard.clear()
                await question.heard.wait()
        return Passed(Code.L4OK, "answered")
