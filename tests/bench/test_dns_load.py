"""The steady DNS queries of ``bench.dns_load``, against sockets of loopback."""

import socket
import threading
from collections.abc import Iterator

import pytest
from waiting import TIMEOUT

from bench import dns_load


class Responder:
    """A name server on loopback that ignores the first ``deaf`` datagrams of each port; with
    ``hears`` False all.
    """

    def __init__(self, deaf: int, hears: bool) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self._deaf = deaf
        self._hears = hears
        self._seen: dict[object, int] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, address = self.socket.recvfrom(512)
            if data == b"end":
                return
            seen = self._seen[address] = self._seen.get(address, 0) + 1
            if self._hears and seen > self._deaf:
                self.socket.sendto(data, address)

    def close(self) -> None:
        """End the thread."""
        self.socket.sendto(b"end", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Start a responder, and have queries go to its port, and be sent again soon if it ignores one.
    Where it answers in the end they are sent until then, whatever the machine has to do.
    """
    started: list[Responder] = []

    def start(deaf: int = 0, *, hears: bool = True) -> None:
        started.append(Responder(deaf, hears))
        monkeypatch.setattr(dns_load, "_PORT", started[0].socket.getsockname()[1])
        monkeypatch.setattr(dns_load, "AGAIN", 0.05 if deaf or not hears else TIMEOUT)
        monkeypatch.setattr(dns_load, "TRIES", 1000 if hears else dns_load.TRIES)

    yield start
    for responder in started:
        responder.close()


def test_queries_that_are_answered_are_counted(serve: object) -> None:
    """The number of queries follows from rate and time."""
    serve()  # type: ignore[operator]
    tally = dns_load.run("127.0.0.1", 500, 0.2)
    assert (tally.asked, tally.answered) == (100, 100)


def test_a_lost_query_is_sent_again(serve: object) -> None:
    """From the same port, so that a server that ignored the first datagram answers the second."""
    serve(deaf=1)  # type: ignore[operator]
    tally = dns_load.run("127.0.0.1", 100, 0.1)
    assert (tally.asked, tally.answered, tally.again) == (10, 10, 10)


def test_an_unanswered_query_times_out(serve: object) -> None:
    """After TRIES times it counts as unanswered."""
    serve(hears=False)  # type: ignore[operator]
    tally = dns_load.run("127.0.0.1", 100, 0.05)
    assert (tally.asked, tally.answered) == (5, 0)
