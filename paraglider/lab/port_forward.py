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

#: address of the page, in the balancer's namespace
ADDRESS, PORT = "127.0.0.1", 9777
_AT_ONCE = 1 << 16


def open_port_forward(balancer: Namespace) -> str:
    """Make the stats page of ``balancer`` reachable on this host; returns its URL."""
    with _listening() as end:
        balancer.popen([sys.executable, "-m", "paraglider.lab.port_forward"], stdin=end.fileno())
        return f"http://{ADDRESS}:{end.getsockname()[1]}/"


def _listening() -> socket.socket:
    """A listening socket at the page's port, or at any free port."""
    try:
        return socket.create_server((ADDRESS, PORT))
    except OSError:
        return socket.create_server((ADDRESS, 0))


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay one connection to the page until either end closes."""
    try:
        page_reader, page_writer = await asyncio.open_connection(ADDRESS, PORT)
    except OSError:  # the daemon does not run
        writer.close()
        return
    copies = (_copy(reader, page_writer), _copy(page_reader, writer))
    tasks = [asyncio.ensure_future(copy) for copy in copies]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        page_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
