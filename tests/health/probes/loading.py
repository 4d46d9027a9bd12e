"""Makes a check of each type with imports refused, of servers that answer well; prints the results.

Started as ``python loading.py CERTIFICATE`` by ``test_loaded``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import dns.message
import dns.rdtypes.ANY.CAA  # of the server, which makes it from text
import dns.rrset

import paraglider.forward.registry  # noqa: F401 - which registers the probes
from paraglider.config.health import AgentCheck, Check
from paraglider.health.agent import ask
from paraglider.health.checker import Checker
from paraglider.health.probes.base import run_check
from paraglider.health.targets import Target

LOCAL = ipaddress.ip_address("127.0.0.1")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RECORDS = (("CNAME", "b."), ("CAA", '0 issue "x"'), ("TXT", "x"), ("A", "192.0.2.1"))
HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
STEPS = ({"send": r"a\xff", "expect": r"b\xff?"},)
CHECKS: tuple[tuple[dict[str, Any], bytes], ...] = (
    ({"type": "tcp", "steps": STEPS}, b"b"),
    ({"type": "redis"}, b"+PONG\r\n"),
    ({"type": "postgresql", "parameters": {"user": "a"}}, b"R" + struct.pack(">II", 8, 0)),
    ({"type": "http", "expect": {"body": "a"}}, HTTP),
    ({"type": "https", "host": "a.example"}, HTTP),
)
DNS = {"type": "dns", "parameters": {"name": "a", "answer": "192"}}


class Closed:
    """Refuses all imports, and says what was to be imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See ``importlib.abc.MetaPathFinder``."""
        say("imported", name)
        raise ImportError(name)


class Names(asyncio.DatagramProtocol):
    """A name server."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer with all records."""
        response = dns.message.make_response(dns.message.from_wire(data))
        response.answer = [dns.rrset.from_text("a.", 60, "IN", *each) for each in RECORDS]
        self._transport.sendto(response.to_wire(want_shuffle=False), addr)


def say(*words: str) -> None:
    """Print a line."""
    sys.stdout.write(", ".join(words) + "\n")


def saying(answer: bytes) -> Handler:
    """A server that reads, answers and closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
        writer.close()

    return handler


async def serve(answer: bytes, tls: ssl.SSLContext | None = None) -> int:
    """The port of a server that answers so."""
    server = await asyncio.start_server(saying(answer), "127.0.0.1", 0, ssl=tls)
    port: int = server.sockets[0].getsockname()[1]
    SERVERS.append(server)
    return port


SERVERS: list[asyncio.Server] = []


async def main(certificate: str) -> None:
    """Check all."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    checker = Checker(lambda _: None)
    await checker.start()
    ports = [await serve(said, tls if c["type"] == "https" else None) for c, said in CHECKS]
    agent = AgentCheck(port=await serve(b"50% up"), timeout=60, send="a")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    await asyncio.get_running_loop().create_datagram_endpoint(Names, sock=sock)
    given = [*(check for check, _ in CHECKS), DNS]
    checks = [Check.model_validate({"timeout": 60, **check}) for check in given]
    sys.meta_path.insert(0, Closed())  # type: ignore[arg-type]
    for check, port in zip(checks, [*ports, sock.getsockname()[1]], strict=True):
        probe = checker._probes[check.type]
        found = await run_check(probe, Target("s", "b", LOCAL, port, check))
        say(check.type, found.code, found.detail, found.warning[:19])
    said, _ = await ask(Target("s", "b", LOCAL, 1, None), agent)
    say("agent", str(said.weight if said is not None else None))
    sys.meta_path.pop(0)
    await checker.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
