"""TCP flows that stay open and go on: lasting.py serve PORT, or lasting.py hold PORT ECHOES DOWNS
ADDRESS….

The server echoes lines, or sends without an end, as the client's first line says. The client opens
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


async def hold(port: int, echoes: int, downs: int, addresses: list[str]) -> None:
    """The client."""
    kinds = ["echo"] * echoes + ["down"] * downs
    flows = [Flow(address, port, kind) for address in addresses for kind in kinds]
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
    server = await asyncio.start_server(serve, None, port, backlog=1000)
    async with server:
        await server.serve_forever()


def main() -> None:
    """See the head of the file."""
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "serve":
        asyncio.run(listen(port))
    else:
        asyncio.run(hold(port, int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))


if __name__ == "__main__":
    main()
