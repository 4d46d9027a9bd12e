"""Clients and servers for what curl and dig cannot do; run as a program in a namespace.

::

    peer.py serve PORT                     TCP: receives and sends bytes, and prints their digest
    peer.py up ADDRESS PORT BYTES          sends BYTES; prints what was sent and what arrived
    peer.py down ADDRESS PORT BYTES        asks for BYTES; the same
    peer.py halves ADDRESS PORT BYTES      asks for BYTES, takes half of them, prints "half", and
                                           after a line of input takes the rest; the same
    peer.py pause ADDRESS PORT             connects, prints "connected", and after a line of input
                                           sends again; prints what came of it
    peer.py rounds ADDRESS PORT BYTES      sends and receives BYTES over one connection, again and
                                           again; prints a number after each round, and after a
                                           line of input what came of it
    peer.py connect ADDRESS PORT [SECONDS] connects; prints what came of it
    peer.py finish ADDRESS PORT BYTES      sends BYTES and the end, and only then is answered;
                                           prints what was sent and what arrived
    peer.py hear ADDRESS PORT              connects and waits to hear something; prints what
    peer.py udp ADDRESS PORT BYTES [TTL]   one datagram; prints who echoed it, and whether whole
    peer.py ports ADDRESS PORT COUNT       datagrams from as many ports; prints who echoed how many
    peer.py still ADDRESS PORT COUNT       the same, one name a port; and after a line of input
                                           again, the other way round
    peer.py again ADDRESS PORT              a datagram at every line of input, all from one port;
                                            prints who answered, or null
    peer.py segments ADDRESS PORT COUNT BYTES
                                           as many datagrams in one call (UDP_SEGMENT); prints how
                                           many came back whole

Rules: standard library only; one JSON object is printed; the bytes are the same for the same
number, so that both ends know them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import select
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any

TIMEOUT = 90.0  # seconds without a byte that end a transfer
ENDLESS = 1 << 62  # bytes
LONG = 30.0  # seconds that a connection or an answer may take
SHORT = 1.5  # of what may not be answered
IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
UDP_SEGMENT = 103  # linux/udp.h


def pattern(size: int) -> bytes:
    """The bytes of a transfer."""
    return hashlib.shake_128(b"paraglider").digest(size)


def digest(data: bytes) -> str:
    """The digest for comparison."""
    return hashlib.sha256(data).hexdigest()


def say(result: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(f"{json.dumps(result)}\n")
    sys.stdout.flush()


def receive(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes, or those before the end."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(1 << 18)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def line(sock: socket.socket) -> str:
    """Read up to a line feed, byte by byte, because later bytes are not part of the line."""
    text = b""
    while not text.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            break
        text += byte
    return text.decode().strip()


def answer(sock: socket.socket) -> None:
    """Serve one connection: ``up BYTES`` or ``down BYTES``, again and again, or ``all``."""
    with sock:
        sock.settimeout(TIMEOUT)
        while words := line(sock).split():
            if words[0] == "all":
                sock.sendall(digest(receive(sock, ENDLESS)).encode() + b"\n")
                return
            size = int(words[1])
            if words[0] == "up":
                sock.sendall(digest(receive(sock, size)).encode() + b"\n")
            else:
                sock.sendall(pattern(size))


def serve(port: int) -> None:
    """Listen in both families until ended."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    say("listening")
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


def up(address: str, port: int, size: int) -> Any:
    """Send ``size`` bytes."""
    data = pattern(size)
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(f"up {size}\n".encode() + data)
        return {"sent": digest(data), "arrived": line(sock)}


def down(address: str, port: int, size: int) -> Any:
    """Receive ``size`` bytes."""
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(f"down {size}\n".encode())
        return {"sent": digest(pattern(size)), "arrived": digest(receive(sock, size))}


def halves(address: str, port: int, size: int) -> Any:
    """Receive ``size`` bytes, with a pause in the middle."""
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(f"down {size}\n".encode())
        arrived = receive(sock, size // 2)
        say("half")
        sys.stdin.readline()
        arrived += receive(sock, size - len(arrived))
        return {"sent": digest(pattern(size)), "arrived": digest(arrived)}


def pause(address: str, port: int) -> Any:
    """A connection that is used, waits for a line of input, and is used again."""
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(b"down 3\n")
        assert receive(sock, 3) == pattern(3)
        say("connected")
        sys.stdin.readline()
        sock.sendall(b"down 3\n")
        return {"arrived": len(receive(sock, 3))}


def rounds(address: str, port: int, size: int) -> Any:
    """Transfers in both directions over one connection until a line of input; at most thirty per
    second, so that several processes leave CPU to the tested ones.
    """
    data, count = pattern(size), 0
    with socket.create_connection((address, port), TIMEOUT) as sock:
        while not select.select([sys.stdin], [], [], 0.03)[0]:
            sock.sendall(f"up {size}\n".encode() + data)
            if line(sock) != digest(data):
                return {"error": "up"}
            sock.sendall(f"down {size}\n".encode())
            if receive(sock, size) != data:
                return {"error": "down"}
            count += 1
            say(count)
    return {"rounds": count}


def connect(address: str, port: int, seconds: int = int(LONG)) -> Any:
    """Whether a connection is accepted, within ``seconds``."""
    socket.create_connection((address, port), seconds).close()
    return {"connected": True}


def finish(address: str, port: int, size: int) -> Any:
    """Send, shut down, and read an answer that was created after that."""
    data = pattern(size)
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(b"all\n" + data)
        sock.shutdown(socket.SHUT_WR)
        return {"sent": digest(data), "arrived": line(sock), "after": len(sock.recv(1))}


def hear(address: str, port: int) -> Any:
    """The first bytes received."""
    with socket.create_connection((address, port), TIMEOUT) as sock:
        return {"heard": sock.recv(100).decode()}


def udp(address: str, port: int, size: int, ttl: int = 64) -> Any:
    """A datagram, and the answer of the lab's echo server: its name, a space, the datagram."""
    data = pattern(size)
    six = ":" in address
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LONG)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.connect((address, port))
        sock.send(data)
        name, _, echo = sock.recv(1 << 16).partition(b" ")
        return {"answer": name.decode(), "whole": echo == data}


def ports(address: str, port: int, count: int) -> Any:
    """Datagrams from ``count`` ports, all different: the sockets are open at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    names: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.settimeout(LONG)
            sock.connect((address, port))
            sock.send(b"who")
            names[sock.recv(100).partition(b" ")[0].decode()] += 1
    return names


def still(address: str, port: int, count: int) -> Any:
    """Datagrams from ``count`` ports, and again after a line of input."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(count)
        ]
        names: dict[socket.socket, str] = {}
        for turn in (socks, socks[::-1]):
            for sock in turn:
                sock.settimeout(TIMEOUT)
                sock.connect((address, port))
                sock.send(b"who")
                names[sock] = sock.recv(100).partition(b" ")[0].decode()
            say([names[sock] for sock in socks])
            sys.stdin.readline()
    return {"asked": 2 * count}


def again(address: str, port: int) -> Any:
    """A datagram from the same port at every line of input."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        for number, _ in enumerate(sys.stdin):
            try:
                say(echoed(sock, b"%d" % number))
            except OSError:
                say(None)
    return {"ended": True}


def echoed(sock: socket.socket, data: bytes) -> str:
    """Who answers this datagram within ``SHORT``; late answers to earlier ones do not count."""
    until = time.monotonic() + SHORT
    sock.send(data)
    while True:
        sock.settimeout(max(until - time.monotonic(), 0.001))
        name, _, echo = sock.recv(100).partition(b" ")
        if echo == data:
            return name.decode()


def segments(address: str, port: int, count: int, size: int) -> Any:
    """Datagrams that leave as one long packet, for the kernel or the device to split."""
    data = pattern(count * size)
    sent = {data[at : at + size] for at in range(0, len(data), size)}
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LONG)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sock.connect((address, port))
        sock.send(data)
        echoed: set[bytes] = set()
        with contextlib.suppress(TimeoutError):
            while len(echoed) < count:
                echoed.add(sock.recv(1 << 16).partition(b" ")[2])
    return {"sent": len(sent), "echoed": len(echoed & sent)}


def main() -> None:
    """Run the command; errors of the network are a result, not a failure."""
    verb, *arguments = sys.argv[1:]
    if verb == "serve":
        serve(int(arguments[0]))
    try:
        address, *numbers = arguments
        result = globals()[verb](address, *map(int, numbers))
    except OSError as error:
        result = {"error": errno.errorcode.get(error.errno or 0, "timed out")}
    say(result)


if __name__ == "__main__":
    main()
