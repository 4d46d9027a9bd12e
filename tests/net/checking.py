"""Runs a checker in a network namespace: orders come in, news go out, a line of JSON each.

Started as ``python checking.py`` by ``test_health``. Standard input's end ends it.
"""

from __future__ import annotations

import asyncio
import sys

import paraglider.forward.registry  # noqa: F401 - which registers the probes
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import TO_ROLE, Message
from paraglider.daemon.monitor.outbox import Outbox
from paraglider.daemon.monitor.process import Monitor
from paraglider.health.checker import Checker
from paraglider.health.pinger import Pinger


class Output:
    """Standard output as the supervisor."""

    pending = False

    def send(self, message: Message) -> None:
        """Send one message."""
        sys.stdout.write(encode(message).decode() + "\n")
        sys.stdout.flush()


async def main() -> None:
    """Check until there are no more orders."""
    outbox = Outbox()
    checker = Checker(outbox.add_health, Pinger())
    monitor = Monitor(checker, None)
    await checker.start()
    outbox.open(Output())
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        monitor.on_message(TO_ROLE["monitor"].validate_json(line))
    await checker.close()


if __name__ == "__main__":
    asyncio.run(main())
