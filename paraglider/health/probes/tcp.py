"""tcp: a backend passes if it accepts a connection.

Lives here: ``Tcp``, and ``connected``, which failover uses too.
Rules: nothing is sent and nothing is read; the connection is closed as soon as it is established.
"""

from __future__ import annotations

import asyncio
import socket

from paraglider.config.types import IPAddress
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeStep
from paraglider.health.targets import Target


class Tcp(Probe):
    """Connects to the target's port."""

    name = "tcp"
    summary = "accepts a connection"
    keys = frozenset({"port"})
    needs_port = True

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Connect."""
        await connected(target.address, target.port)
        return Passed(Code.L4OK, "connected")


async def connected(address: IPAddress, port: int) -> None:
    """Return as soon as ``address`` accepts a connection; raises OSError when it does not."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(family, flags) as sock:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
