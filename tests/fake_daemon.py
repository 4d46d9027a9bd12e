"""A stand-in for the daemon at its control socket, for tests of the announcer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from waiting import TIMEOUT

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
WELL = {"announce": True, "status": "healthy", "why": ""}
ILL = {"announce": False, "status": "unhealthy", "why": "service web: no backend takes new flows"}


class FakeDaemon:
    """Listens at ``path``; one client at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end: socket.socket | None = None
        self.listening: socket.socket | None = None
        self.listen()

    def listen(self, backlog: int = 8) -> None:
        """It starts."""
        self.path.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen(backlog)
        self.listening.settimeout(TIMEOUT)

    def accept(self, head: bytes = HEAD) -> str:
        """Take a client, and begin to answer; returns the first line of its request."""
        assert self.listening is not None
        self.end, _ = self.listening.accept()
        self.end.settimeout(TIMEOUT)
        request = self.end.recv(1000).decode().splitlines()[0]
        self.end.sendall(head)
        return request

    def tell(self, vips: dict[str, Any] | None = None, loads: int | None = None) -> None:
        """A line."""
        assert self.end is not None
        line: dict[str, Any] = {} if vips is None else {"vips": vips}
        if loads is not None:
            line = {"loads": loads, **line}
        self.end.sendall(json.dumps(line).encode() + b"\n")

    def hang_up(self) -> None:
        """The http process ends; the supervisor still listens."""
        if self.end is not None:
            self.end.close()
            self.end = None

    def die(self) -> None:
        """The daemon is killed: its socket stays in the file system."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None
        self.hang_up()
