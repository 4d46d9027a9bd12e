"""The messages of one process: in order, in slices, never more than there is time for."""

from __future__ import annotations

from paraglider.daemon.ipc import Frame
from paraglider.daemon.messages import KilledFlows
from paraglider.daemon.processes.inbox import MOST_MESSAGES, SLICE, Inbox


class Handler:
    """Handles messages, each of which takes ``cost`` seconds of the clock."""

    def __init__(self, cost: float) -> None:
        self.now = 100.0
        self.handled: list[int] = []
        self._cost = cost
        self.inbox = Inbox(lambda: self.now)

    def take(self, frame: Frame) -> None:
        """Note it."""
        assert isinstance(frame.message, KilledFlows)
        self.now += self._cost
        self.handled.append(frame.message.killed)

    def receive(self, count: int) -> bool:
        """Receive ``count`` messages; returns whether the process is muted afterwards."""
        self.inbox.add(Frame(KilledFlows(killed=number)) for number in range(count))
        return self.inbox.handle(self.take)


def test_what_comes_is_handled_in_order() -> None:
    """All at once while they are cheap."""
    handler = Handler(0.0)
    assert not handler.receive(100)
    assert handler.handled == list(range(100))
    assert handler.inbox.muted is None


def test_what_takes_long_is_handled_in_slices() -> None:
    """Half of the time is left for others; nothing is lost, nothing comes twice."""
    handler = Handler(SLICE / 2)
    assert handler.receive(7)
    begin = 100.0
    while handler.inbox.muted is not None:
        spent = handler.now - begin
        assert spent <= 2 * SLICE
        assert handler.inbox.muted >= handler.now + spent / 2
        begin = handler.now = handler.inbox.muted
        handler.inbox.handle(handler.take)
    assert handler.handled == list(range(7))


def test_so_many_in_a_second() -> None:
    """The rest is handled in the next one, unless the process is gone by then."""
    handler = Handler(0.0)
    assert handler.receive(MOST_MESSAGES + 2)
    assert len(handler.handled) == MOST_MESSAGES
    assert handler.inbox.muted == handler.now + 1.0
    handler.now += 1.0
    assert not handler.inbox.handle(handler.take)
    assert len(handler.handled) == MOST_MESSAGES + 2
    assert handler.receive(MOST_MESSAGES)
    handler.inbox.clear()
    assert not handler.inbox.handle(handler.take)
