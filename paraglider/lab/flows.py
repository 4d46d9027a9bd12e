"""A client's flows that stay open over events, and new connections meanwhile.

Lives here: ``serve``, the backends' part, and ``OpenFlows``, the client's (``lab.lasting``).
Rules: a flow is broken if it ended, or if it does not go on within the time that a caller has for
it: one that hangs is of no use to its client. A new connection belongs to the time in which it
began, however late it ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from paraglider.errors import PlatformError
from paraglider.lab.namespace import Namespace

_PROGRAM: Final = "paraglider.lab.lasting"
_UNDER_WAY: Final = 0.3  # seconds in which packets under way arrive
_PAUSE: Final = 0.1  # seconds between two readings
_END: Final = 60.0  # timeout in seconds


@dataclass(frozen=True)
class NewConnections:
    """How many connections were opened, how many failed, and the longest time in seconds that one
    of them took.
    """

    opened: int = 0
    failed: int = 0
    slowest: float = 0.0


def serve(hosts: Iterable[Namespace], port: int) -> None:
    """Start the flows' server in ``hosts`` and wait until all listen; raises ``PlatformError``."""
    command = [sys.executable, "-m", _PROGRAM, "serve", str(port)]
    servers = [host.popen(command, stdout=subprocess.PIPE) for host in hosts]
    for server in servers:
        assert server.stdout is not None  # noqa: S101 - stdout=PIPE
        if server.stdout.readline() != b"listening\n":
            raise PlatformError(f"a server of port {port} ended: see what listens there")


class OpenFlows:
    """Flows of ``client`` to ``ends``, addresses as ``lab.lasting`` has them: ``echoes`` and
    ``downs`` to each, of TCP or UDP; and ``rate`` new connections a second to each.
    """

    def __init__(
        self,
        client: Namespace,
        port: int,
        ends: Iterable[str],
        echoes: int,
        downs: int,
        *,
        protocol: str = "tcp",
        rate: float = 0.0,
    ) -> None:
        numbers = (str(number) for number in (port, echoes, downs, rate))
        self._process = client.popen(
            [sys.executable, "-m", _PROGRAM, protocol, *numbers, *ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def broken(self, patience: float) -> int:
        """How many flows break, or do not go on within ``patience`` seconds from now; returns as
        soon as all have.
        """
        begin = time.monotonic()
        while True:
            time.sleep(_PAUSE)
            waited = time.monotonic() - begin
            found = self._ask()
            # What was under way when the event happened is no progress.
            silent = [each for each in found["silent"] if each > waited - _UNDER_WAY]
            if not silent or waited > patience:
                return len(found["errors"]) + len(silent)

    def count_from_now(self) -> None:
        """Count new connections from now."""
        self._ask(b"begin\n")

    def new_connections(self, patience: float) -> NewConnections:
        """Those since ``count_from_now``, once all that have begun by now have ended, at most
        ``patience`` seconds.
        """
        begin = time.monotonic()
        while True:
            found = self._ask()
            waited = time.monotonic() - begin
            if found["waiting"] <= waited or waited > patience:
                return NewConnections(found["opened"], found["failed"], found["slowest"])
            time.sleep(_PAUSE)

    def end(self) -> None:
        """Close them."""
        self._process.communicate(timeout=_END)

    def _ask(self, line: bytes = b"\n") -> dict[str, Any]:
        """See ``lab.lasting``; raises ``PlatformError`` if the client has ended."""
        assert self._process.stdin is not None  # noqa: S101 - stdin=PIPE
        assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise PlatformError("the client's flows could not be opened, or their program ended")
        found: dict[str, Any] = json.loads(answer)
        return found
