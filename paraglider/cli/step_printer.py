"""Prints the steps of a set-up: one line each, and the totals at the end."""

from __future__ import annotations

from collections import Counter


class StepPrinter:
    """Prints the steps and counts their outcomes."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def __call__(self, outcome: str, what: str) -> None:
        """Print one step."""
        self._count[outcome] += 1
        print(f"{outcome:<11} {what}", flush=True)

    @property
    def empty(self) -> bool:
        """True if there was no step."""
        return not self._count

    def print_totals(self) -> None:
        """Print the last line: the number of steps by outcome."""
        print(", ".join(f"{count} {outcome}" for outcome, count in self._count.items()))
