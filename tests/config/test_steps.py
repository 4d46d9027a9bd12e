"""Tests of ``paraglider.config.steps``: the result and the exception come through."""

from __future__ import annotations

import pytest

from paraglider.config.steps import Steps, completed


def test_all_steps_at_once() -> None:
    """The result is that of the last step; an exception ends it."""
    done: list[int] = []

    def count(most: int) -> Steps[str]:
        for number in range(most):
            done.append(number)
            yield
        if most > 2:
            raise ValueError("too many")
        return f"{most} done"

    assert completed(count(2)) == "2 done"
    with pytest.raises(ValueError, match="too many"):
        completed(count(3))
    assert done == [0, 1, 0, 1, 2]
