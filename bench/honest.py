"""Honest clients: connections at a steady pace, and one that stays; run as a program.

::

    python bench/honest.py VIP PORT RATE SECONDS

Begins RATE connections a second for SECONDS, each for one HTTP request, and beside them asks over
one connection that was there before, a hundred times a second. Prints how many connections were
``tried`` and ``kept`` (answered within ``PATIENCE``), and the median and the 99th percentile of the
time in which the connection that stays was answered, in ms. Rules: standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time

#: seconds in which a connection must have been made and answered; the kernel sends a SYN that was
#: lost again after one second, so a lost SYN is a lost connection
PATIENCE = 1.0
#: seconds between two requests over the connection that stays
PAUSE = 0.01

_REQUEST = b"GET / HTTP/1.1\r\nHost: flood\r\n%s\r\n"


async def once(vip: str, port: int) -> bool:
    """One connection with one request; whether it was answered in time."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(vip, port)
            writer.write(_REQUEST % b"Connection: close\r\n")
            return (await reader.read(4096)).startswith(b"HTTP/1.1 200")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def stay(vip: str, port: int, seconds: float, ready: asyncio.Event) -> list[float]:
    """Ask over one connection for so long; the ms until each answer.

    An answer that is missing at the end counts for the time that it was waited for.
    """
    reader, writer = await asyncio.open_connection(vip, port)
    found = []
    end = time.monotonic() + seconds
    ready.set()
    while (begun := time.monotonic()) < end:
        writer.write(_REQUEST % b"")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(end - begun, PATIENCE)):
                if not await reader.read(4096):
                    break
        found.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(PAUSE)
    writer.close()
    return found


async def run(vip: str, port: int, rate: int, seconds: float) -> dict[str, float]:
    """See the head of the file."""
    ready = asyncio.Event()
    staying = asyncio.create_task(stay(vip, port, seconds, ready))
    await ready.wait()
    begun = time.monotonic()
    tries = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        tries.append(asyncio.create_task(once(vip, port)))
    kept = sum(await asyncio.gather(*tries))
    times = sorted(await staying) or [PATIENCE * 1000]
    return {
        "tried": len(tries),
        "kept": kept,
        "p50": statistics.median(times),
        "p99": times[int(len(times) * 0.99)],
    }


if __name__ == "__main__":
    vip, port, rate, seconds = sys.argv[1:]
    result = asyncio.run(run(vip, int(port), int(rate), float(seconds)))
    sys.stdout.write(f"{json.dumps(result)}\n")
