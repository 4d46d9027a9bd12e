"""DNS queries at a constant rate, each from its own port, as from the stub resolvers of many
clients.

``python -m bench.dns_load ADDRESS RATE SECONDS`` queries ``ADDRESS`` port 53 for the A record of
``name.test``, RATE times a second, and prints one line of JSON: ``asked``, ``answered``, ``again``
(queries that were sent more than once) and ``longest`` (seconds until an answer).

Rules: an unanswered query is sent again from the same port after AGAIN seconds, TRIES times in all,
as in resolv.conf(5); after that it counts as unanswered. Time is CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

TRIES: Final = 3
AGAIN: Final = 2.0
_PORT: Final = 53
#: header (id to be filled in, RD, one question), then the question (RFC 1035, section 4.1)
_QUESTION: Final = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04name\x04test\x00\x00\x01\x00\x01"


@dataclass(slots=True)
class Tally:
    """The results so far."""

    asked: int = 0
    answered: int = 0
    again: int = 0
    longest: float = 0.0


@dataclass(slots=True)
class Query:
    """An open query: its socket, its packet, the time of its first sending, and the number of
    tries.
    """

    socket: socket.socket
    packet: bytes
    begun: float
    tries: int = 1
    done: bool = False


class Resolvers:
    """The clients that query ``address``."""

    def __init__(self, address: str) -> None:
        self.tally = Tally()
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._address = address
        self._ready = selectors.DefaultSelector()
        self._waiting: deque[tuple[float, Query]] = deque()  # by when it is to be sent again

    @property
    def waiting(self) -> bool:
        """Whether a query is under way."""
        return bool(self._waiting)

    def ask(self, now: float) -> None:
        """Send one more query."""
        end = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        end.connect((self._address, _PORT))
        packet = (self.tally.asked & 0xFFFF).to_bytes(2, "big") + _QUESTION
        query = Query(end, packet, now)
        self.tally.asked += 1
        self._send(query)
        self._ready.register(end, selectors.EVENT_READ, query)
        self._waiting.append((now + AGAIN, query))

    def read(self, now: float, timeout: float) -> None:
        """Read the answers that arrive within ``timeout`` seconds."""
        for key, _ in self._ready.select(timeout):
            query: Query = key.data
            try:
                answer = query.socket.recv(512)
            except OSError:  # refused: sent again when its time comes
                continue
            if answer[:2] == query.packet[:2]:
                self.tally.answered += 1
                self.tally.longest = max(self.tally.longest, now - query.begun)
                self._end(query)

    def send_again(self, now: float) -> None:
        """Repeat queries that have waited for AGAIN seconds; drop those that
        were sent TRIES times.
        """
        while self._waiting and (self._waiting[0][1].done or self._waiting[0][0] <= now):
            _, query = self._waiting.popleft()
            if query.done:
                continue
            if query.tries == TRIES:
                self._end(query)
                continue
            self.tally.again += query.tries == 1
            query.tries += 1
            self._send(query)
            self._waiting.append((now + AGAIN, query))

    def _send(self, query: Query) -> None:
        with contextlib.suppress(OSError):  # no room, or an ICMP error: counts as lost
            query.socket.send(query.packet)

    def _end(self, query: Query) -> None:
        query.done = True
        self._ready.unregister(query.socket)
        query.socket.close()


def run(address: str, rate: float, seconds: float) -> Tally:
    """Send ``rate`` queries a second for ``seconds``, and wait for the last answers."""
    resolvers = Resolvers(address)
    begin = time.monotonic()
    wanted = int(rate * seconds)
    while resolvers.tally.asked < wanted or resolvers.waiting:
        now = time.monotonic()
        due = min(wanted, int((now - begin) * rate))
        for _ in range(min(due - resolvers.tally.asked, 200)):
            resolvers.ask(now)
        resolvers.read(now, 0.002)
        resolvers.send_again(now)
    return resolvers.tally


if __name__ == "__main__":
    print(json.dumps(asdict(run(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))))  # noqa: T201
