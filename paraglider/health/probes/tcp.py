"""tcp: whoever accepts a connection passes.

Lives here: ``tcp`` and ``connected``, which failover asks too.
Rules: nothing is sent and nothing is read; the connection is closed as soon as it stands.
"""

from __future__ import annotations

import asyncio
import socket

from paraglider.config.types import IPAddress
from paraglider.health.probes.base import Step
from paraglider.health.targets import Target


async def tcp(target: Target, step: Step) -> str:
    """Connect to the target's port."""
    step.name = "connect"
    await connected(target.address, target.port)
    return "connected"


async def connected(address: IPAddress, port: int) -> None:
    """Return as soon as ``address`` accepts a connection; raises OSError when it does not."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(family, flags) as sock:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
