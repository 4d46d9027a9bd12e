"""The page of a kept lab is seen on the host, and the window ends with the lab.

The host is a network namespace, since other tests may have the port on the real one.
"""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from waiting import TIMEOUT, wait_until

from paraglider.lab import port_forward
from paraglider.lab.namespace import Namespace
from paraglider.lab.port_forward import open_port_forward
from paraglider.lab.topology import new_prefix

pytestmark = pytest.mark.root
PAGE = f"""
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"seen " + self.path.encode())
http.server.HTTPServer(({port_forward.ADDRESS!r}, {port_forward.PORT}), Page).serve_forever()
"""


@pytest.fixture
def balancer(inside: Namespace) -> Iterator[Namespace]:
    """A namespace with a page on its loopback."""
    with Namespace(f"{new_prefix()}-balancer") as made:
        made.ip("link set lo up")
        made.popen([sys.executable, "-c", PAGE])
        yield made


def fetched(url: str) -> str:
    """The content of ``url``, as soon as there is a listener."""

    def answered() -> str:
        with suppress(OSError), urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return str(answer.read().decode())
        return ""

    return wait_until(answered)


def test_the_page_is_seen_until_the_lab_goes(balancer: Namespace) -> None:
    """Connections are relayed one after the other; afterwards there is no listener."""
    url = open_port_forward(balancer)
    assert [fetched(f"{url}{n}") for n in range(3)] == [f"seen /{n}" for n in range(3)]
    balancer.close()
    port = int(url.rpartition(":")[2].strip("/"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((port_forward.ADDRESS, port)).close()


def test_another_port_where_the_page_s_own_is_taken(balancer: Namespace) -> None:
    """Two labs may be kept at once."""
    first, second = open_port_forward(balancer), open_port_forward(balancer)
    assert first != second
    assert fetched(first) == fetched(second) == "seen /"
