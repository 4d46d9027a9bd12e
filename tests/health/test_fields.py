"""Fields of a message: what they must be, or an error that does not repeat them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan
from typing import Any

import pytest

from paraglider.health.fields import LONGEST_LINE, LONGEST_NAME, flag, name, number, text, whole


@pytest.mark.parametrize(
    ("judge", "good"),
    [
        (text, ["", "status 200", "größer"]),
        (name, ["", "10.0.0.1:80", "a" * LONGEST_NAME]),
        (partial(number, low=0, high=9), [0, 9, 4.5]),
        (partial(whole, low=-1, high=9), [-1, 9]),
        (flag, [True, False]),
    ],
)
def test_what_is_right_comes_through(judge: Callable[..., Any], good: list[Any]) -> None:
    """As it is; one that is missing is a KeyError."""
    for value in good:
        assert judge({"f": value}, "f") == value
    with pytest.raises(KeyError):
        judge({}, "f")


@pytest.mark.parametrize(
    ("judge", "bad"),
    [
        (text, [None, 5, ["secret"], {"secret": 1}]),
        (name, [None, 5, "secret" + "a" * LONGEST_NAME]),
        (partial(number, low=0, high=9), [None, "5", True, nan, inf, -inf, -1, 10, 10**400]),
        (partial(whole, low=0, high=9), [None, "5", False, 5.0, nan, -1, 10**400]),
        (flag, [None, 0, 1, "true"]),
    ],
)
def test_what_is_not_is_refused(judge: Callable[..., Any], bad: list[Any]) -> None:
    """By ValueError, which says which field and not what stood there."""
    for value in bad:
        with pytest.raises(ValueError, match="`f`") as caught:
            judge({"f": value}, "f")
        assert "secret" not in str(caught.value)


def test_a_line_is_one_line() -> None:
    """Cut, and without what a terminal would obey."""
    assert text({"f": "a\x1b[2Jb\nc"}, "f") == "a [2Jb c"
    assert len(text({"f": "a" * 10_000}, "f")) == LONGEST_LINE
