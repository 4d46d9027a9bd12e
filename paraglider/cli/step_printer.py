"""Tells of the steps of a set-up as they are taken: one line each, and how many in the end."""

from __future__ import annotations

from collections import Counter


class Teller:
    """Prints the steps and counts what became of them."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def __call__(self, outcome: str, what: str) -> None:
        """Print one step."""
        self._count[outcome] += 1
        print(f"{outcome:<11} {what}", flush=True)

    @property
    def nothing(self) -> bool:
        """True when no step was told of."""
        return not self._count

    def sum_up(self) -> None:
        """The last line: how many steps came to what."""
        print(", ".join(f"{count} {outcome}" for outcome, count in self._count.items()))
