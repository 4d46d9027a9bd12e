"""icmp: a backend passes if it answers a ping.

Lives here: ``Icmp``. HAProxy has no code for a ping: its lowest layer is 4.
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
        with echo.echo_request() as request:
            echo.send(request, target.address)
            while target.address not in request.answers:
                request.replied.clear()
                await request.replied.wait()
        return Passed(Code.L4OK, "answered")
