"""A backend of the lab: HTTP and UDP servers that answer with their own name.

``python -m paraglider.lab.servers NAME --http 80 --udp 5353`` prints ``listening`` once all sockets
are open, and serves IPv4 and IPv6 until SIGTERM.

Rules: standard library only, so that the lab needs only this package. HTTP/1.1 with one request per
connection: ``GET /bytes/N`` is answered with N bytes, any other request with the name. A UDP
datagram is answered with the name, a space and the datagram, from the address that it was sent to:
a source chosen by the routes could be another address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import socket
import sys

IP_PKTINFO = 8  # linux/in.h
MAX_HEAD = 16_384  # bytes of a request that are read before it is refused
MAX_BODY = 1 << 30  # most bytes that a client may request
CHUNK = b"x" * 65_536


def response_head(name: str, length: int) -> bytes:
    """Status line and headers of an answer with ``length`` bytes of body."""
    return (
        f"HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


def body_length(request: bytes) -> int | None:
    """The N of ``GET /bytes/N``; None for any other request."""
    match = re.match(rb"GET /bytes/(\d{1,10}) ", request)
    return min(int(match[1]), MAX_BODY) if match else None


class Server:
    """The servers of the backend called ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            length = body_length(request)
            if length is None:
                body = f"{self.name}\n".encode()
                writer.write(response_head(self.name, len(body)) + body)
            else:
                writer.write(response_head(self.name, length))
                while length > 0:
                    writer.write(CHUNK[:length])
                    length -= len(CHUNK)
                    await writer.drain()
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client closed the connection, or sent no HTTP request
        finally:
            writer.close()


def echo(sock: socket.socket, name: bytes) -> None:
    """Answer a datagram with the name, a space and itself, from the address that it was sent to."""
    with contextlib.suppress(OSError):  # the client is unreachable, or its port is closed
        data, ancillary, _, client = sock.recvmsg(1 << 16, 64)
        sock.sendmsg([name, b" ", data], [_source(*item) for item in ancillary], 0, client)


def _source(level: int, kind: int, info: bytes) -> tuple[int, int, bytes]:
    """The received control message as one that makes the destination the source of the answer.

    The interface is not set, because the route back may use another one (ip(7), ipv6(7)).
    """
    if level == socket.IPPROTO_IP:
        return level, kind, bytes(4) + info[8:12] + bytes(4)
    return level, kind, info[:16] + bytes(4)


def udp_socket(family: socket.AddressFamily, port: int) -> socket.socket:
    """A socket bound to ``port`` on every address of ``family``; reports a datagram's address."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("", port))
    return sock


async def serve(name: str, http: list[int], udp: list[int]) -> None:
    """Serve until SIGTERM or SIGINT; raises ``OSError`` when a port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(name)
    for port in http:
        await asyncio.start_server(server.http, None, port, limit=MAX_HEAD)
    for port in udp:
        for family in (socket.AF_INET, socket.AF_INET6):
            sock = udp_socket(family, port)
            loop.add_reader(sock, echo, sock, name.encode())
    print("listening", flush=True)
    await stop.wait()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m paraglider.lab.servers")
    parser.add_argument("name")
    parser.add_argument("--http", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--udp", type=int, action="append", default=[], metavar="PORT")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.name, arguments.http, arguments.udp))
    except OSError as error:
        sys.exit(f"{arguments.name}: {error}")


if __name__ == "__main__":
    main()
