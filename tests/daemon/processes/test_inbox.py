"""The messages of one process: in order, in slices, and never more than somebody can bear."""

from __future__ import annotations

from paraglider.daemon.processes.channel import Message
from paraglider.daemon.processes.inbox import MOST_MESSAGES, SLICE, Inbox


class Hearer:
    """Takes messages, each of which takes ``cost`` seconds of the clock."""

    def __init__(self, cost: float) -> None:
        self.now = 100.0
        self.heard: list[int] = []
        self._cost = cost
        self.inbox = Inbox(lambda: self.now)

    def take(self, message: Message) -> None:
        """Note it."""
        self.now += self._cost
        self.heard.append(message["n"])

    def say(self, count: int) -> bool:
        """So many messages come; whether the process is muted then."""
        self.inbox.put({"n": number} for number in range(count))
        return self.inbox.handle(self.take)


def test_what_comes_is_heard_in_order() -> None:
    """As long as it is cheap, all of it at once."""
    hearer = Hearer(0.0)
    assert not hearer.say(100)
    assert hearer.heard == list(range(100))
    assert hearer.inbox.muted is None


def test_what_takes_long_is_heard_in_slices() -> None:
    """Half of the time is the hub's; nothing is lost, nothing comes twice."""
    hearer = Hearer(SLICE / 2)
    assert hearer.say(7)
    begin = 100.0
    while hearer.inbox.muted is not None:
        spent = hearer.now - begin
        assert spent <= 2 * SLICE
        assert hearer.inbox.muted >= hearer.now + spent / 2
        begin = hearer.now = hearer.inbox.muted
        hearer.inbox.handle(hearer.take)
    assert hearer.heard == list(range(7))


def test_so_many_in_a_second() -> None:
    """The rest is heard in the next one, unless the process is gone by then."""
    hearer = Hearer(0.0)
    assert hearer.say(MOST_MESSAGES + 2)
    assert len(hearer.heard) == MOST_MESSAGES
    assert hearer.inbox.muted == hearer.now + 1.0
    hearer.now += 1.0
    assert not hearer.inbox.handle(hearer.take)
    assert len(hearer.heard) == MOST_MESSAGES + 2
    assert hearer.say(MOST_MESSAGES)
    hearer.inbox.clear()
    assert not hearer.inbox.handle(hearer.take)
