"""Long computations in steps: generators that yield wherever other work may be done first.

Lives here: ``Steps``, the type of such a computation, and ``completed``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

Steps = Generator[None, None, _T]
"""Yields between its steps, and returns its result."""


def completed(steps: Steps[_T]) -> _T:
    """Run all ``steps`` at once; returns their result, raises their exceptions."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
