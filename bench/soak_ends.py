"""Both ends of the soak (``bench.soak``): long transfers, an interactive echo, datagrams.

``python -m bench.soak_ends serve NAME PORT ADDRESS…`` answers in a backend: a connection that
begins with ``stream`` is sent numbers for ever; one that begins with ``echo`` is echoed; a datagram
is answered with NAME and the datagram.

``python -m bench.soak_ends load TRANSFERS PORT KINDS VIP…`` opens the flows in the client, over all
VIPs in turn, prints ``{"open": N}`` once all are established, and every second how many were lost.
After an empty line of input it waits until each flow has received data again, at most SETTLE
seconds, and prints the lost flows by kind, with reasons.

``… again TRANSFERS PORT KINDS VIP…`` opens lost connections again. To each line ``count`` it
answers ``{"ended": N, "open": M}``: how many have ended so far, and how many are established now.

Rules: standard library only. A flow is lost if it is reset or closed, or receives wrong data or
none; a UDP flow also if another backend answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

#: bytes of one piece of a transfer, and seconds between two: some 16 kB/s a flow
PIECE: Final = 4096
PAUSE: Final = 0.25
#: seconds between two lines of an interactive connection, and two datagrams of a flow
KEYSTROKE: Final = 0.1
#: seconds within which flows must receive data again after the last fault
SETTLE: Final = 60.0
_NUMBER: Final = struct.Struct("!Q")


def numbers(first: int, count: int) -> bytes:
    """A transfer's bytes: ``count`` numbers from ``first`` on."""
    return b"".join(map(_NUMBER.pack, range(first, first + count)))


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def serve(name: str, port: int, addresses: list[str]) -> None:
    """Answer on ``addresses``, over TCP and UDP, for ever."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            kind = await reader.readline()
            at = 0
            while kind == b"stream\n":
                writer.write(numbers(at, PIECE // _NUMBER.size))
                at += PIECE // _NUMBER.size
                await writer.drain()
                await asyncio.sleep(PAUSE)
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(name.encode() + b" " + data, address)

    loop = asyncio.get_running_loop()
    for address in addresses:  # each its own, so that datagrams are answered from where they went
        await asyncio.start_server(talk, address, port, backlog=1024)
        await loop.create_datagram_endpoint(Datagrams, (address, port))
    say("listening")
    await asyncio.Event().wait()


@dataclass(slots=True)
class Flow:
    """One flow: the time of its last data, and the reason if it is lost."""

    kind: str
    family: int
    seen: float = 0.0
    lost: str = ""


@dataclass(slots=True)
class Load:
    """All flows."""

    again: bool = False
    ended: int = 0
    flows: list[Flow] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, kind: str, vip: str, port: int) -> None:
        """Open one flow more."""
        flow = Flow(kind, 6 if ":" in vip else 4)
        self.flows.append(flow)
        carry = datagrams if kind == "udp" else connection
        self.tasks.append(asyncio.create_task(self._carry(carry, flow, vip, port)))

    async def _carry(self, carry: Any, flow: Flow, vip: str, port: int) -> None:
        while not flow.lost:
            try:
                await carry(flow, vip, port)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                if not self.again:
                    flow.lost = str(error) or type(error).__name__
                self.ended += flow.seen > 0
                flow.seen = 0.0
                await asyncio.sleep(KEYSTROKE)

    def count(self) -> dict[str, int]:
        """How many connections have ended, and how many are established."""
        return {"ended": self.ended, "open": sum(flow.seen > 0 for flow in self.flows)}

    def lost(self) -> int:
        """How many are lost so far."""
        return sum(bool(flow.lost) for flow in self.flows)

    def result(self) -> dict[str, Any]:
        """The result: flows by outcome."""
        flows = []
        for kind, family in sorted({(flow.kind, flow.family) for flow in self.flows}):
            of = [flow for flow in self.flows if (flow.kind, flow.family) == (kind, family)]
            lost = sum(bool(flow.lost) for flow in of)
            flows.append({"kind": kind, "family": family, "open": len(of), "lost": lost})
        why = Counter(flow.lost for flow in self.flows if flow.lost)
        return {"flows": flows, "why": dict(why.most_common(5))}


async def connection(flow: Flow, vip: str, port: int) -> None:
    """A transfer, or lines and their echo; raises if it is lost."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(vip, port), 30)
    writer.write(b"stream\n" if flow.kind == "transfer" else b"echo\n")
    at = 0
    while True:
        if flow.kind == "transfer":
            count = 64
            if await reader.readexactly(count * _NUMBER.size) != numbers(at, count):
                raise ValueError("the bytes of a transfer are not those that were sent")
        else:
            count = 1
            writer.write(b"%d\n" % at)
            line = await reader.readline()
            if not line:
                raise ValueError("closed")
            if int(line) != at:
                raise ValueError("the echo is another's")
            await asyncio.sleep(KEYSTROKE)
        at += count
        flow.seen = time.monotonic()


class Answers(asyncio.DatagramProtocol):
    """Receives the answers of one UDP flow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._backend = b""
        self.moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _address: Any) -> None:
        """See ``asyncio.DatagramProtocol``."""
        backend = data.split(b" ")[0]
        self._backend = self._backend or backend
        if backend != self._backend and not self.moved.done():
            self.moved.set_exception(ValueError("another backend answers"))
        self._flow.seen = time.monotonic()


async def datagrams(flow: Flow, vip: str, port: int) -> None:
    """Datagrams from one port, answered by one backend."""
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(
        lambda: Answers(flow), remote_addr=(vip, port)
    )
    while not answers.moved.done():
        transport.sendto(b"x")
        await asyncio.wait([answers.moved], timeout=KEYSTROKE)
    answers.moved.result()


async def load(transfers: int, port: int, kinds: str, vips: list[str], *, again: bool) -> None:
    """Carry ``transfers`` transfers, a tenth as many echoes and a quarter as many flows of UDP, as
    far as they are of ``kinds``.
    """
    everything = Load(again)
    counts = {"transfer": transfers, "echo": max(transfers // 10, 2), "udp": max(transfers // 4, 2)}
    for kind in kinds.split(","):
        for number in range(counts[kind]):
            everything.begin(kind, vips[number % len(vips)], port)
            await asyncio.sleep(0.005)
    while any(not flow.seen and not flow.lost for flow in everything.flows):
        await asyncio.sleep(0.05)
    say(json.dumps({"open": len(everything.flows) - everything.lost()}))
    loop = asyncio.get_running_loop()
    asked = "count"
    while asked == "count":
        word = loop.run_in_executor(None, sys.stdin.readline)
        while not word.done():
            await asyncio.wait([word], timeout=1.0)
            say(json.dumps({"lost": everything.lost()}))
        asked = word.result().strip()
        if asked:
            say(json.dumps(everything.count()))
    calm = time.monotonic()
    while time.monotonic() < calm + SETTLE and any(
        f.seen < calm + KEYSTROKE and not f.lost for f in everything.flows
    ):
        await asyncio.sleep(0.1)
    for flow in everything.flows:
        if flow.seen < calm + KEYSTROKE and not flow.lost:
            flow.lost = "carries nothing any more"
    say(json.dumps(everything.result()))
    for task in everything.tasks:
        task.cancel()


def main(arguments: list[str]) -> None:
    """See the top."""
    what, first, port = arguments[0], arguments[1], int(arguments[2])
    if what == "serve":
        work = serve(first, port, arguments[3:])
    else:
        work = load(int(first), port, arguments[3], arguments[4:], again=what == "again")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work)


if __name__ == "__main__":
    main(sys.argv[1:])
