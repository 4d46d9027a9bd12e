"""Flows that stay open and go on: lasting.py serve PORT, or lasting.py tcp|udp PORT ECHOES DOWNS
ADDRESS….

The server echoes lines, or sends without an end, as the client's first line says. By UDP it sends
for ``LONG`` seconds, whatever the client sends meanwhile for an echo. The client opens
so many flows of each kind to each address (ADDRESS@OWN: from this address of its own), sends a line
over each echo five times a second, and reads. For every line on standard input it prints as JSON
how long ago each flow last got something, in seconds, and the errors of the flows that broke.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import time

PACE = 0.2  # seconds between two lines of an echo
PIECE = 2000  # bytes that a download gets at a time
PIECES = 0.05  # seconds between two of them
LONG = 300.0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the server."""
    try:
        kind = await reader.readline()
        while kind == b"down\n":
            writer.write(bytes(PIECE))
            await writer.drain()
            await asyncio.sleep(PIECES)
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """The server of UDP."""

    def __init__(self) -> None:
        self._sending: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """See ``asyncio``."""
        self._transport = transport

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        """See ``asyncio``."""
        if data == b"down\n":
            self._sending.add(asyncio.ensure_future(self._send(client)))

    async def _send(self, client: tuple[str, int]) -> None:
        for _ in range(int(LONG / PIECES)):
            self._transport.sendto(bytes(100), client)
            await asyncio.sleep(PIECES)


class Flow:
    """A client's connection to ``address``: when it last got something, and its error."""

    def __init__(self, address: str, port: int, kind: str) -> None:
        self.seen = 0.0
        self.error = ""
        address, _, own = address.partition("@")
        self._place = address, port
        self._own = (own, 0) if own else None
        self._kind = kind

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(
            *self._place, local_addr=self._own
        )
        self._writer.write(self._kind.encode() + b"\n")

    async def run(self) -> None:
        """Go on until it breaks."""
        try:
            while True:
                await self._step()
                if self._kind == "echo":
                    await asyncio.sleep(PACE)
        except OSError as error:
            self.error = errno.errorcode[error.errno or 0]
        except EOFError:
            self.error = "closed"

    async def _step(self) -> None:
        if self._kind == "echo":
            self._writer.write(b"line\n")
            got = await self._reader.readline()
        else:
            got = await self._reader.read(1 << 16)
        if not got:
            raise EOFError
        self.seen = time.monotonic()


class DatagramFlow(Flow, asyncio.DatagramProtocol):
    """A client's flow of UDP."""

    async def open(self) -> None:
        """Send the first datagram."""
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=self._own, remote_addr=self._place
        )
        self._datagrams.sendto(b"down\n")

    def datagram_received(self, data: bytes, server: tuple[str, int]) -> None:
        """See ``asyncio``."""
        self.seen = time.monotonic()

    async def _step(self) -> None:
        if self._kind == "echo":
            self._datagrams.sendto(b"line\n")
        else:
            await asyncio.sleep(LONG)


async def hold(flow: type[Flow], port: int, echoes: int, downs: int, addresses: list[str]) -> None:
    """The client."""
    kinds = ["echo"] * echoes + ["down"] * downs
    flows = [flow(address, port, kind) for address in addresses for kind in kinds]
    await asyncio.gather(*(flow.open() for flow in flows))
    tasks = [asyncio.ensure_future(flow.run()) for flow in flows]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while await lines.readline():
        now = time.monotonic()
        errors = [flow.error for flow in flows if flow.error]
        silent = [now - flow.seen for flow in flows if not flow.error]
        sys.stdout.write(json.dumps({"errors": errors, "silent": silent}) + "\n")
        sys.stdout.flush()
    for task in tasks:
        task.cancel()


async def listen(port: int) -> None:
    """The server."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=("::", port))  # of both families
    server = await asyncio.start_server(serve, None, port, backlog=1000)
    async with server:
        await server.serve_forever()


def main() -> None:
    """See the head of the file."""
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "serve":
        asyncio.run(listen(port))
    else:
        kind = DatagramFlow if role == "udp" else Flow
        asyncio.run(hold(kind, port, int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))


if __name__ == "__main__":
    main()
