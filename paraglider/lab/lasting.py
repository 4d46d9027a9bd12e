"""Flows that stay open and go on, and new connections beside them.

``python -m paraglider.lab.lasting serve PORT`` prints ``listening``, then echoes lines, or sends
without an end, as the client's first line says. By UDP it sends for ``LONG`` seconds, whatever the
client sends meanwhile for an echo.

``python -m paraglider.lab.lasting tcp|udp PORT ECHOES DOWNS RATE ADDRESS…`` opens so many flows of
each kind to each address (``ADDRESS@OWN``: from this address of its own), sends a line over each
echo five times a second, and reads. Besides, it opens ``RATE`` new connections a second to each
address, each for one line. For every line on standard input it prints one JSON object:

- ``errors``: those of the flows that broke;
- ``silent``: how long ago each of the others last got something, in seconds;
- ``opened``, ``failed``, ``slowest``: new connections that got their line, those that did not, and
  the longest time that one took, in seconds, since the last line that was ``begin``;
- ``waiting``: how long ago the oldest of the new connections under way began.

Rules: standard library only. No new connection waits for another one: while many hang, as many are
begun as ever.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import time
from typing import Any, cast

PACE = 0.2  # seconds between two lines of an echo
PIECE = 2000  # bytes that a download gets at a time
PIECES = 0.05  # seconds between two of them
LONG = 300.0
PATIENCE = 3.0  # seconds that a new connection may take


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


class DatagramServer(asyncio.DatagramProtocol):
    """The server of UDP."""

    def __init__(self) -> None:
        self._sending: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio``."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, client: tuple[str | Any, int]) -> None:
        """See ``asyncio``."""
        if data == b"down\n":
            self._sending.add(asyncio.ensure_future(self._send(client)))

    async def _send(self, client: tuple[str | Any, int]) -> None:
        for _ in range(int(LONG / PIECES)):
            self._transport.sendto(bytes(100), client)
            await asyncio.sleep(PIECES)


class LastingFlow:
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


class LastingDatagrams(LastingFlow, asyncio.DatagramProtocol):
    """A client's flow of UDP."""

    async def open(self) -> None:
        """Send the first datagram."""
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=self._own, remote_addr=self._place
        )
        self._datagrams.sendto(b"down\n")

    def datagram_received(self, data: bytes, server: tuple[str | Any, int]) -> None:
        """See ``asyncio``."""
        self.seen = time.monotonic()

    async def _step(self) -> None:
        if self._kind == "echo":
            self._datagrams.sendto(b"line\n")
        else:
            await asyncio.sleep(LONG)


class Openings:
    """New connections, ``rate`` a second to each of ``addresses``; none if that is 0."""

    def __init__(self, addresses: list[str], port: int, rate: float) -> None:
        self._addresses = [address.partition("@")[0] for address in addresses]
        self._port = port
        self._rate = rate
        self._begun: dict[asyncio.Task[None], float] = {}
        self.count_from_now()

    def count_from_now(self) -> None:
        """Forget what has ended."""
        self._opened, self._failed, self._slowest = 0, 0, 0.0

    def report(self) -> dict[str, float]:
        """See the head of the file."""
        now = time.monotonic()
        return {
            "opened": self._opened,
            "failed": self._failed,
            "slowest": self._slowest,
            "waiting": max((now - begun for begun in self._begun.values()), default=0.0),
        }

    async def run(self) -> None:
        """Open them, until cancelled."""
        begin, rounds = time.monotonic(), 0
        while self._rate:
            for address in self._addresses:
                task = asyncio.ensure_future(self._try(address))
                self._begun[task] = time.monotonic()
                task.add_done_callback(lambda done: self._begun.pop(done, 0.0))
            rounds += 1
            await asyncio.sleep(begin + rounds / self._rate - time.monotonic())

    async def _try(self, address: str) -> None:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(address, self._port)
                try:
                    writer.write(b"echo\nline\n")
                    answered = await reader.readline() == b"line\n"
                finally:
                    writer.close()
        except OSError:
            answered = False
        self._slowest = max(self._slowest, time.monotonic() - begin)
        if answered:
            self._opened += 1
        else:
            self._failed += 1


async def hold(
    flow: type[LastingFlow], port: int, kinds: list[str], rate: float, addresses: list[str]
) -> None:
    """The client."""
    flows = [flow(address, port, kind) for address in addresses for kind in kinds]
    await asyncio.gather(*(flow.open() for flow in flows))
    openings = Openings(addresses, port, rate)
    tasks = [asyncio.ensure_future(flow.run()) for flow in flows]
    tasks.append(asyncio.ensure_future(openings.run()))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        if line == b"begin\n":
            openings.count_from_now()
        now = time.monotonic()
        errors = [flow.error for flow in flows if flow.error]
        silent = [now - flow.seen for flow in flows if not flow.error]
        report = {"errors": errors, "silent": silent, **openings.report()}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    for task in tasks:
        task.cancel()


async def listen(port: int) -> None:
    """The server."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(DatagramServer, local_addr=("::", port))  # of both families
    server = await asyncio.start_server(serve, None, port, backlog=1000)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """See the head of the file."""
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "serve":
        asyncio.run(listen(port))
    else:
        echoes, downs, rate = sys.argv[3:6]
        kinds = ["echo"] * int(echoes) + ["down"] * int(downs)
        kind = LastingDatagrams if role == "udp" else LastingFlow
        asyncio.run(hold(kind, port, kinds, float(rate), sys.argv[6:]))


if __name__ == "__main__":
    main()
