"""Continuous traffic for a kept lab.

``python -m paraglider.lab.traffic PORT ADDRESS…`` opens some dozens of connections per second to
the web service at the addresses, at a varying rate, and keeps each open for a few seconds.

Rules: standard library only; failed connections are not retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import sys
import time

#: mean connections per second, and the limit of open ones
RATE = 25.0
MOST = 200
#: period of the rate, in seconds
PERIOD = 180.0
#: the longest time that a connection is open, in seconds, and the most bytes that it requests
HELD, ASKED = 4.0, 60_000


def pause(now: float) -> float:
    """Seconds from ``now`` until the next connection: Poisson arrivals at a sinusoidal rate."""
    factor = 1.0 + 0.6 * math.sin(2 * math.pi * now / PERIOD)
    return random.expovariate(RATE * factor)


async def visit(address: str, port: int) -> None:
    """One connection: a request, its answer, and a pause."""
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


async def visit_forever(port: int, addresses: list[str]) -> None:
    """Visit ``addresses`` in turn, without end."""
    visits: set[asyncio.Task[None]] = set()
    for address in itertools.cycle(addresses):
        if len(visits) < MOST:
            task = asyncio.create_task(visit(address, port))
            visits.add(task)
            task.add_done_callback(visits.discard)
        await asyncio.sleep(pause(time.monotonic()))


if __name__ == "__main__":
    asyncio.run(visit_forever(int(sys.argv[1]), sys.argv[2:]))
