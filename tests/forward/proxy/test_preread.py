"""Routes by the ClientHello: which backend gets a connection, and every byte of it.

``test_preread_tls`` has whole handshakes.
"""

from __future__ import annotations

import gc
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hellos import hello, protocols, server_name
from waiting import TIMEOUT

from paraglider.config.model import Config
from paraglider.core.client_hello import MOST
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.proxy.header import header
from paraglider.forward.proxy.preread import Preread

#: seconds that no test waits for
LONG = 60.0
NAMED = (("www.a.example",), ())
IMAP = ((), ("imap",))


@pytest.fixture
def routed(run: Any, server: Any) -> Callable[..., tuple[Any, socket.socket, socket.socket]]:
    """A function that runs a proxy with one route: the listening sockets of the service's own
    backend, and of that of the route.
    """

    def make(**options: Any) -> tuple[Any, socket.socket, socket.socket]:
        own, named = server(), server()
        routes = {"named": (NAMED, [named.getsockname()])}
        return run(own, **{"routes": routes, "hello": LONG, **options}), own, named

    return make


def arrived(listening: socket.socket, size: int) -> bytes:
    """The first ``size`` bytes of the next connection, or all if there are fewer."""
    end, _ = listening.accept()
    end.settimeout(TIMEOUT)
    found = b""
    with end:
        while len(found) < size and (more := end.recv(size - len(found))):
            found += more
    return found


@pytest.mark.parametrize("size", [1, 3, 1 << 14], ids=["records of a byte", "of three", "one"])
def test_three_hundred_pieces(routed: Any, size: int) -> None:
    """Each piece is a segment, of a byte or more; the backend gets the very same bytes."""
    running, _, named = routed()
    data = hello(server_name(b"www.a.example"), (21, bytes(400)), size=size)
    cut = max(len(data) // 300, 1)
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    assert len(pieces) >= 300
    with running.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            client.sendall(piece)
            if number % 30 == 0 and number < len(pieces) - 30:
                sent = (number + 1) * cut
                running.until(lambda sent=sent: [p._seen for p in prereads(running)] == [sent])
        assert arrived(named, len(data)) == data


def prereads(running: Any) -> list[Preread]:
    """The clients that have not said what they want."""
    return [each for each in running.proxy._attempts if isinstance(each, Preread)]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_proxy_protocol(routed: Any, version: Any) -> None:
    """The header comes first, then the ClientHello, then the rest, which is there already."""
    running, own, named = routed(versions={"named": version})
    for name, listening in ((b"www.a.example", named), (b"b.example", own)):
        data = hello(server_name(name)) + b"early data"
        with running.connect() as client:
            client.sendall(data)
            ends = [client.getsockname(), running.address]
            key = b"".join(socket.inet_aton(end[0]) for end in ends)
            key += b"".join(end[1].to_bytes(2, "big") for end in ends)
            told = header(version, key) + data if listening is named else data
            assert arrived(listening, len(told)) == told


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        hello(server_name(b"a", b"b")),
        hello(server_name(b"www.a.example"), (21, bytes(MOST))),
        hello(server_name(b"www.a.example"), (21, bytes(MOST // 4)), size=1),
    ],
    ids=["no TLS", "claims 16 MB", "malformed", "too long", "too many records"],
)
def test_what_is_no_hello(routed: Any, data: bytes) -> None:
    """The service's own backends get it, at once and whole."""
    running, own, _ = routed()
    with running.connect() as client:
        client.sendall(data)
        assert arrived(own, len(data)) == data


def test_a_server_that_speaks_first(routed: Any) -> None:
    """A client that waits for it is connected to the service's own backends after the time."""
    running, own, _ = routed(hello=0.1)
    with running.connect() as client:
        end, _ = own.accept()
        with end:
            end.sendall(b"220 ready")
            assert client.recv(9) == b"220 ready"


def test_half_a_hello_and_no_more(routed: Any) -> None:
    """The time is for all of it, whatever comes in between."""
    running, own, _ = routed(hello=0.3)
    data = hello(server_name(b"www.a.example"))
    with running.connect() as client:
        client.sendall(data[:20])
        running.until(lambda: prereads(running))
        client.sendall(data[20:40])
        assert arrived(own, 40) == data[:40]


def test_bytes_that_wait_cause_no_events(routed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay in the socket, and only further bytes are looked at."""
    looks: list[int] = []
    look = Preread._look

    def counted(self: Preread, client: socket.socket) -> bool:
        looks.append(self._seen)
        return look(self, client)

    monkeypatch.setattr(Preread, "_look", counted)
    running, _, named = routed()
    data = hello(server_name(b"www.a.example"))
    with running.connect() as client:
        client.sendall(data[:20])
        running.until(lambda: [p._seen for p in prereads(running)] == [20])
        before = len(looks)
        for _ in range(50):  # turns of the loop
            running.call(lambda: None)
        assert len(looks) <= before + 1
        client.sendall(data[20:])
        assert arrived(named, len(data)) == data


@pytest.mark.parametrize("sent", [0, 20])
def test_the_client_ends_its_stream(routed: Any, sent: int) -> None:
    """No more can come: the service's own backends get what there is, and the end."""
    running, own, _ = routed()
    data = hello(server_name(b"www.a.example"))[:sent]
    for wait in (False, True):
        with running.connect() as client:
            client.sendall(data)
            if wait:
                running.until(lambda: [p._seen for p in prereads(running)] == [sent])
            client.shutdown(socket.SHUT_WR)
            assert arrived(own, sent + 1) == data


def test_the_client_resets(routed: Any) -> None:
    """No backend is told of it."""
    running, own, _ = routed()
    client = running.connect()
    running.until(lambda: prereads(running))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    running.until(lambda: running.proxy.live == 0)
    assert running.call(lambda: [b.conns for b in running.pool.backends]) == [0]
    own.setblocking(False)
    with pytest.raises(BlockingIOError):
        own.accept()


def test_a_route_has_backends_of_its_own(run: Any, server: Any, closed_port: Any) -> None:
    """Its strategy goes by itself; the service's own backends do not stand in for those that
    refuse, which may not even have the certificate.
    """
    own, *two = (server() for _ in range(3))
    ends = [end.getsockname() for end in two]
    routes = {"named": (NAMED, ends), "closed": (IMAP, [closed_port])}
    running = run(own, routes=routes, hello=LONG)
    data = hello(server_name(b"www.a.example"))
    for listening in two * 2:
        with running.connect() as client:
            client.sendall(data)
            assert arrived(listening, len(data)) == data
    with running.connect() as client:
        client.sendall(hello(protocols(b"imap")))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert running.call(lambda: running.pool.backends[0].conns) == 0


def test_affinity_is_a_routes_own(run: Any, server: Any) -> None:
    """A client keeps a backend at each of them."""
    own, *two = (server() for _ in range(3))
    routes = {"named": (NAMED, [end.getsockname() for end in two])}
    running = run(own, routes=routes, hello=LONG, affinity=True)
    for data, listening in [(hello(server_name(b"www.a.example")), two[0]), (b"plain", own)] * 2:
        with running.connect() as client:
            client.sendall(data)
            assert arrived(listening, len(data)) == data


def test_they_count_as_connections(routed: Any) -> None:
    """Those that have not said anything are bounded with the others, and a drain ends them."""
    running, own, _ = routed(bound=2)
    clients = [running.connect() for _ in range(3)]
    running.until(lambda: running.proxy.live == 2 and not running.proxy._accepting)
    clients[0].sendall(b"plain")
    end, _ = own.accept()
    with end:
        assert end.recv(5) == b"plain"
        drained = threading.Event()
        running.call(lambda: running.proxy.drain(0.05, drained.set))
        assert drained.wait(TIMEOUT)
    with pytest.raises(ConnectionResetError):
        clients[1].recv(1)
    for client in clients:
        client.close()


def test_no_reference_cycle_is_left(routed: Any) -> None:
    """With the cyclic collector off: after a ClientHello, and after the time without one."""
    running, own, named = routed(hello=0.1)
    gc.collect()
    gc.disable()
    try:
        for data, listening in ((hello(server_name(b"www.a.example")), named), (b"\x16", own)):
            with running.connect() as client:
                client.sendall(data)
                assert arrived(listening, len(data)) == data
        running.until(lambda: not any(type(each) is Preread for each in gc.get_objects()))
    finally:
        gc.enable()


def test_without_routes(run: Any, server: Any) -> None:
    """Nothing is in the way of a connection."""
    running = run(server())
    assert running.proxy._begin == running.proxy._start_attempt


def test_another_configuration(run: Any, server: Any) -> None:
    """Routes come, change and go without a restart; a client that has said half follows them, and
    one whose service goes is reset.
    """
    own, named, other = (server() for _ in range(3))
    running = run(own, hello=LONG)
    web: dict[str, Any] = {
        "name": "web",
        "vip": "127.0.0.1/8",
        "protocol": "tcp",
        "forward": "proxy",
    }
    web |= {"ports": running.address[1], "strategy": "rr"}

    def config(*routes: tuple[str, str, socket.socket]) -> Config:
        made = [{**web, "backends": [backend(own)]}]
        for name, sni, listening in routes:
            route = {"service": "web", "sni": [sni]}
            made.append({**web, "name": name, "route": route, "backends": [backend(listening)]})
        return Config.model_validate({"services": made})

    def backend(listening: socket.socket) -> dict[str, Any]:
        host, port = listening.getsockname()
        return {"address": host, "port": port}

    def become(old: Config, new: Config) -> None:
        running.call(lambda: running.proxy.apply_config(new, old, 0, STRATEGIES))

    def finish(client: socket.socket, rest: bytes, listening: socket.socket) -> None:
        with client:
            client.sendall(rest)
            assert arrived(listening, len(data)) == data

    data = hello(server_name(b"www.a.example"))
    none, first = config(), config(("r1", "www.a.example", named))
    second = config(("r1", "x.example", named), ("r2", "*.a.example", other))
    half: socket.socket | None = None
    for old, new, listening in [
        (none, none, own),
        (none, first, named),
        (first, second, other),
        (second, none, own),
    ]:
        become(old, new)
        if half is not None:
            finish(half, data[20:], listening)
        finish(running.connect(), data, listening)
        half = running.connect() if new is not none else None
        if half is not None:
            half.sendall(data[:20])
            running.until(lambda: [p._seen for p in prereads(running)] == [20])
    become(none, first)
    with running.connect() as client:
        running.until(lambda: prereads(running))
        gone = first.model_copy(update={"services": ()})
        become(first, gone)
        client.sendall(b"plain")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    running.until(lambda: running.proxy.live == 0)
