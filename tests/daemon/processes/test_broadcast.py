"""Broadcasts to several processes: each ends once, with the answers that came in time."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.daemon.processes.broadcast import MOST, Answers, Broadcasts
from paraglider.errors import PlatformError


class Asked:
    """Broadcasts, and what was sent to whom."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.ended: list[Answers] = []
        self.questions = Broadcasts(lambda index, message: self.sent.append((index, message)))

    def ask(self, *whom: int, until: float = 10.0) -> int:
        """Ask them; the question's number."""
        self.questions.ask(whom, {"do": "count"}, until, self.ended.append)
        return int(self.sent[-1][1]["id"]) if whom else 0


def test_it_ends_when_all_have_answered() -> None:
    """With every answer, by the number of its process, and once."""
    asked = Asked()
    number = asked.ask(2, 1)
    assert asked.sent == [(1, {"do": "count", "id": number}), (2, {"do": "count", "id": number})]
    asked.questions.answer(1, {"re": number, "n": 10})
    assert asked.ended == []
    asked.questions.answer(2, {"re": number, "n": 20})
    assert asked.ended == [{1: {"re": number, "n": 10}, 2: {"re": number, "n": 20}}]
    asked.questions.answer(2, {"re": number, "n": 30})
    assert len(asked.ended) == 1


def test_nobody_to_ask() -> None:
    """It ends at once, with nothing."""
    asked = Asked()
    asked.ask()
    assert asked.ended == [{}]


def test_who_is_gone_is_not_waited_for() -> None:
    """What the others said counts."""
    asked = Asked()
    number = asked.ask(1, 2)
    asked.questions.answer(1, {"re": number})
    asked.questions.gone(2)
    assert asked.ended == [{1: {"re": number}}]


def test_who_is_silent_is_not_waited_for() -> None:
    """When the time is over it ends; until then ``look`` tells how long that is."""
    asked = Asked()
    number = asked.ask(1, 2, until=10.0)
    asked.ask(1, until=12.0)
    assert asked.questions.look(4.0) == 6.0
    asked.questions.answer(2, {"re": number})
    assert asked.questions.look(10.0) == 2.0
    assert asked.ended == [{2: {"re": number}}]
    asked.questions.look(12.0)
    assert asked.ended == [{2: {"re": number}}, {}]
    assert asked.questions.look(13.0) > 60


@pytest.mark.parametrize("re", [None, 0, 99, "1", [], {}, 1.0, True])
def test_an_answer_to_nothing_is_passed_over(re: Any) -> None:
    """Whatever a process says; nor does it answer for another one."""
    asked = Asked()
    number = asked.ask(1)
    asked.questions.answer(1, {"re": re} if re != number else {"re": 99})
    asked.questions.answer(7, {"re": number})
    assert asked.ended == []


def test_too_many_are_refused() -> None:
    """The bound is on what is open, not on what was asked."""
    asked = Asked()
    numbers = [asked.ask(1) for _ in range(MOST)]
    with pytest.raises(PlatformError, match="too many questions"):
        asked.ask(1)
    asked.questions.answer(1, {"re": numbers[0]})
    asked.ask(1)
    assert len(asked.ended) == 1


def test_the_end_of_one_may_ask_the_next() -> None:
    """``done`` may ask again while others are being ended."""
    asked = Asked()

    def again(_answers: Answers) -> None:
        asked.ask(1, until=50.0)

    asked.questions.ask([1], {"do": "first"}, 5.0, again)
    asked.questions.ask([1], {"do": "second"}, 5.0, again)
    assert asked.questions.look(5.0) == 45.0
    asked.questions.gone(1)
    assert asked.ended == [{}, {}]
