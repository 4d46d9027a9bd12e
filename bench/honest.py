"""Honest clients: connections at a constant rate, and long-lived flows; run as a program.

::

    python bench/honest.py VIP PORT RATE SECONDS [UDP_PORT [NETWORK]]

Opens RATE connections a second for SECONDS, each for one HTTP request, and sends requests over one
existing connection, a hundred times a second. With UDP_PORT, where datagrams are echoed, also over
one existing UDP flow, and ``NEW`` flows a second of one datagram each. With NETWORK, all of whose
addresses belong to this host, NEW connections a second more, each from a new address of it.

Prints how many connections were ``tried`` and ``kept`` (answered within ``TIMEOUT``), the same for
new clients and UDP flows (``new_tried``, ``udp_kept``, …), and the median and the 99th percentile
of the response time of the long-lived flows in ms (``p50``, ``udp_p50``, …).
Rules: standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator

#: seconds in which a connection must have been made and answered; the kernel sends a SYN that was
#: lost again after one second, so a lost SYN is a lost connection
TIMEOUT = 1.0
#: seconds between two requests over a long-lived flow
PAUSE = 0.01
#: connections of new clients, and new flows of UDP, a second
NEW = 50

_REQUEST = b"GET / HTTP/1.1\r\nHost: flood\r\n%s\r\n"


async def once(vip: str, port: int, source: str | None = None) -> bool:
    """One connection with one request; returns whether it was answered in time."""
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT):
            local = (source, 0) if source else None
            reader, writer = await asyncio.open_connection(vip, port, local_addr=local)
            writer.write(_REQUEST % b"Connection: close\r\n")
            return (await reader.read(4096)).startswith(b"HTTP/1.1 200")
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


@contextlib.contextmanager
def datagrams(vip: str, port: int) -> Iterator[socket.socket]:
    """A socket for datagrams to ``port`` and back."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((vip, port))
        yield sock


async def echoed(sock: socket.socket, number: int, timeout: float = TIMEOUT) -> bool:
    """Whether a datagram with ``number`` came back in time."""
    loop = asyncio.get_running_loop()
    sent = b"%d" % number
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(timeout):
            await loop.sock_sendall(sock, sent)
            while await loop.sock_recv(sock, 2048) != sent:
                pass
            return True
    return False


async def once_udp(vip: str, port: int) -> bool:
    """One flow of one datagram; returns whether it was echoed in time."""
    with datagrams(vip, port) as sock:
        return await echoed(sock, 0)


async def stay_udp(vip: str, port: int, seconds: float) -> list[float]:
    """Send requests over one UDP flow for ``seconds``; returns the response times in ms,
    ``TIMEOUT`` for a missing response.
    """
    found: list[float] = []
    with datagrams(vip, port) as sock:
        for number in range(10):
            await echoed(sock, -number)
        end = time.monotonic() + seconds
        for number in itertools.count(1):
            begun = time.monotonic()
            if begun >= end:
                return found
            await echoed(sock, number)
            found.append((time.monotonic() - begun) * 1000)
            await asyncio.sleep(PAUSE)
    return found


async def stay(vip: str, port: int, seconds: float, ready: asyncio.Event) -> list[float]:
    """Send requests over one connection for ``seconds``; returns the response times in ms.

    A response that is missing at the end counts with the time waited.
    """
    reader, writer = await asyncio.open_connection(vip, port)
    found = []
    end = time.monotonic() + seconds
    ready.set()
    while (begun := time.monotonic()) < end:
        writer.write(_REQUEST % b"")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(end - begun, TIMEOUT)):
                if not await reader.read(4096):
                    break
        found.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(PAUSE)
    writer.close()
    return found


async def steadily(
    begin: Callable[[int], Coroutine[object, object, bool]], rate: float, seconds: float
) -> tuple[int, int]:
    """Begin ``rate`` of them a second for ``seconds``; returns how many were tried, and kept."""
    begun = time.monotonic()
    tries = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        tries.append(asyncio.create_task(begin(number)))
    return len(tries), sum(await asyncio.gather(*tries))


def summary(prefix: str, times: list[float]) -> dict[str, float]:
    """Median and 99th percentile of ``times``."""
    times = sorted(times) or [TIMEOUT * 1000]
    p99 = times[int(len(times) * 0.99)]
    return {f"{prefix}p50": statistics.median(times), f"{prefix}p99": p99}


async def run(
    vip: str, port: int, rate: int, seconds: float, udp_port: int = 0, network: str = ""
) -> dict[str, float]:
    """See the head of the file."""
    ready = asyncio.Event()
    staying = asyncio.create_task(stay(vip, port, seconds, ready))
    await ready.wait()
    kinds = {"": steadily(lambda _: once(vip, port), rate, seconds)}
    if udp_port:
        staying_udp = asyncio.create_task(stay_udp(vip, udp_port, seconds))
        kinds["udp_"] = steadily(lambda _: once_udp(vip, udp_port), NEW, seconds)
    if network:
        sources = ipaddress.ip_network(network)
        first = int(time.monotonic() * NEW)  # others than those of the run before
        most = sources.num_addresses - 2

        def new(number: int) -> Coroutine[object, object, bool]:
            return once(vip, port, str(sources[1 + (first + number) % most]))

        kinds["new_"] = steadily(new, NEW, seconds)
    counts = await asyncio.gather(*kinds.values())
    found: dict[str, float] = {}
    for prefix, (tried, kept) in zip(kinds, counts, strict=True):
        found |= {f"{prefix}tried": tried, f"{prefix}kept": kept}
    found |= summary("", await staying)
    return found | summary("udp_", await staying_udp) if udp_port else found


if __name__ == "__main__":
    vip, port, rate, seconds, *more = sys.argv[1:]
    udp_port, network, *_ = (*more, "", "") if more else ("0", "")
    wanted = run(vip, int(port), int(rate), float(seconds), int(udp_port), network)
    result = asyncio.run(wanted)
    sys.stdout.write(f"{json.dumps(result)}\n")
