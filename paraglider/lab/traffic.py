"""Traffic without an end, so that there is something to see in a kept lab.

``python -m paraglider.lab.traffic PORT ADDRESS…`` opens some dozens of connections a second to the
web service at the addresses, now more and now less, and holds each for a moment.

Rules: standard library only; what fails is tried no more, for the next one follows at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import sys
import time

#: connections a second, on the average, and how many at a time
RATE = 25.0
MOST = 200
#: seconds from one high tide to the next
TIDE = 180.0
#: seconds that a connection is held, and bytes that it asks for, at most
HELD, ASKED = 4.0, 60_000


def pause(now: float) -> float:
    """Seconds until the next connection, at ``now``: a slow tide and some chance."""
    tide = 1.0 + 0.6 * math.sin(2 * math.pi * now / TIDE)
    return random.expovariate(RATE * tide)


async def visit(address: str, port: int) -> None:
    """One connection: a request, its answer, and a moment more."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2 * HELD):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(
                    f"GET /bytes/{random.randrange(ASKED)} HTTP/1.1\r\nHost: lab\r\n\r\n".encode()
                )
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(random.uniform(0.0, HELD))
            finally:
                writer.close()


async def keep_on(port: int, addresses: list[str]) -> None:
    """Visit ``addresses`` in turn, for ever."""
    visits: set[asyncio.Task[None]] = set()
    for address in itertools.cycle(addresses):
        if len(visits) < MOST:
            task = asyncio.create_task(visit(address, port))
            visits.add(task)
            task.add_done_callback(visits.discard)
        await asyncio.sleep(pause(time.monotonic()))


if __name__ == "__main__":
    asyncio.run(keep_on(int(sys.argv[1]), sys.argv[2:]))
