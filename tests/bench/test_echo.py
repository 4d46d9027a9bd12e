"""The server that sends datagrams back."""

from __future__ import annotations

import socket
import threading

from waiting import TIMEOUT

from bench import echo


def test_datagrams_come_back() -> None:
    """Unchanged, to their source."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        serving = threading.Thread(target=echo.serve, args=(server, 2))
        serving.start()
        client.settimeout(TIMEOUT)
        client.connect(server.getsockname())
        for sent in (b"one", b"two"):
            client.send(sent)
            assert client.recv(10) == sent
        serving.join(TIMEOUT)
        assert not serving.is_alive()
