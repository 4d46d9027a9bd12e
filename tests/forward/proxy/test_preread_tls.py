"""Routes of TLS connections that end at the backends, each with a certificate of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from waiting import TIMEOUT

#: what the routes match: names, protocols
NAMED = (("www.a.example",), ())
WILD = (("*.a.example",), ())
IMAP = ((), ("imap",))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For any name, since no client here looks at it."""
    return self_signed(tmp_path_factory.mktemp("tls"), "a.example")


@pytest.fixture
def secure(server: Any, certificate: Path) -> Iterator[Callable[[str], socket.socket]]:
    """A function that runs a TLS server, which says its name, and the name and the protocol that
    its client asked for.
    """
    threads: list[threading.Thread] = []

    def serve(listening: socket.socket, name: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "imap"])
        asked: list[str | None] = []
        context.sni_callback = lambda _socket, sni, _context: asked.append(sni)
        while True:
            try:
                end, _ = listening.accept()
            except OSError:
                return  # the test is over
            with context.wrap_socket(end, server_side=True) as secured:
                told = f"{name} {asked[-1]} {secured.selected_alpn_protocol()}"
                secured.sendall(told.encode())
                secured.recv(1)

    def make(name: str) -> socket.socket:
        listening: socket.socket = server()
        listening.settimeout(None)
        thread = threading.Thread(target=serve, args=(listening, name), daemon=True)
        thread.start()
        threads.append(thread)
        ends.append(listening)
        return listening

    ends: list[socket.socket] = []
    yield make
    for end in ends:
        end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(TIMEOUT)


def asked(address: Any, name: str | None, alpn: list[str], version: str) -> str:
    """What the server says to a TLS client that asks for ``name`` and ``alpn``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion[version]
    if alpn:
        context.set_alpn_protocols(alpn)
    with (
        socket.create_connection(address, TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        told = secured.recv(100).decode()
        secured.sendall(b".")
        return told


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls(run: Any, secure: Any, version: str) -> None:
    """Handshakes end at the backends, which present their own certificates: the name decides, then
    the protocol; what no route takes goes to the service's own backends.
    """
    own, named, wild, imap = (secure(name) for name in ("own", "named", "wild", "imap"))
    routes = {"r1": (WILD, [wild]), "r2": (NAMED, [named]), "r3": (IMAP, [imap])}
    routes = {
        name: (match, [e.getsockname() for e in ends]) for name, (match, ends) in routes.items()
    }
    running = run(own, routes=routes, hello=60.0)
    for name, alpn, expected in [
        ("www.a.example", [], "named www.a.example None"),
        ("WWW.A.EXAMPLE", ["h2"], "named WWW.A.EXAMPLE h2"),
        ("x.a.example", ["imap"], "wild x.a.example imap"),
        ("other.example", ["imap", "h2"], "imap other.example h2"),
        ("x.y.a.example", ["h2"], "own x.y.a.example h2"),
        (None, [], "own None None"),
        (None, ["imap"], "imap None imap"),
    ]:
        assert asked(running.address, name, alpn, version) == expected
    rows = running.call(lambda: {row[0]: row[2]["conns"] for row in running.proxy.traffic()})
    assert rows == {"web": 2, "r1": 1, "r2": 2, "r3": 2}
