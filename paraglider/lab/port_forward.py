"""Makes the stats page of a kept lab reachable from the host.

Lives here: ``open_port_forward``, which starts a relay in the balancer's namespace. The relay's
listening socket is created on the host and passed as its standard input.
Rules: standard library only. The socket is on loopback. It closes when the namespace is removed,
because the relay is the only process that holds it.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from paraglider.lab.namespace import Namespace

#: where the page is, in the balancer's namespace
ADDRESS, PORT = "127.0.0.1", 9777
_AT_ONCE = 1 << 16


def open_port_forward(balancer: Namespace) -> str:
    """Make the stats page of ``balancer`` seen on this host; its URL."""
    with _listening() as end:
        balancer.popen([sys.executable, "-m", "paraglider.lab.port_forward"], stdin=end.fileno())
        return f"http://{ADDRESS}:{end.getsockname()[1]}/"


def _listening() -> socket.socket:
    """A socket at the page's own port, or at any that is free."""
    try:
        return socket.create_server((ADDRESS, PORT))
    except OSError:
        return socket.create_server((ADDRESS, 0))


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection on to the page, until either end is done."""
    try:
        there, back = await asyncio.open_connection(ADDRESS, PORT)
    except OSError:  # the daemon is gone
        writer.close()
        return
    ways = (_carry(reader, back), _carry(there, writer))
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        back.close()
        writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_AT_ONCE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return


async def _serve() -> None:
    server = await asyncio.start_server(_relay, sock=socket.socket(fileno=0))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
