"""Broadcasts of the hub to several of its processes, and their answers, which come later or never.

Rules: nobody waits. A question ends when all that were asked have answered or are gone, or when
its time is over; then its ``done`` is called once, with the answers that came, by the number of
the process. An answer that nobody waits for is passed over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from paraglider.daemon.processes.channel import Message
from paraglider.errors import PlatformError

#: questions that may be open at a time
MOST: Final = 64

Answers = dict[int, Message]
Done = Callable[[Answers], None]
#: sends a message to the process of that number
Send = Callable[[int, Message], None]


@dataclass(slots=True)
class _Question:
    asked: set[int]
    until: float
    done: Done
    answers: Answers = field(default_factory=dict)


class Broadcasts:
    """The open questions; ``send`` sends one to a process."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    def ask(self, whom: Iterable[int], message: dict[str, Any], until: float, done: Done) -> None:
        """Ask the processes ``whom``; raises ``PlatformError`` when too much is being asked."""
        if len(self._open) >= MOST:
            raise PlatformError("too many questions at a time", "ask again in a moment")
        number = next(self._numbers)
        asked = set(whom)
        self._open[number] = _Question(set(asked), until, done)
        for index in sorted(asked):
            self._send(index, {**message, "id": number})
        self._settle(number)

    def answer(self, index: int, message: Message) -> None:
        """The process ``index`` has answered."""
        number = message.get("re")
        question = self._open.get(number) if isinstance(number, int) else None
        if question is None or number is None or index not in question.asked:
            return
        question.asked.discard(index)
        question.answers[index] = message
        self._settle(number)

    def gone(self, index: int) -> None:
        """The process ``index`` is gone, and answers no more."""
        for number, question in list(self._open.items()):
            question.asked.discard(index)
            self._settle(number)

    def look(self, now: float) -> float:
        """End the questions whose time is over; seconds until the next one's is."""
        for number, question in list(self._open.items()):
            if question.until <= now:
                question.asked.clear()
                self._settle(number)
        ends = [question.until for question in self._open.values()]
        return max(0.0, min(ends) - now) if ends else 3600.0

    def _settle(self, number: int) -> None:
        question = self._open.get(number)
        if question is not None and not question.asked:
            del self._open[number]
            question.done(question.answers)
