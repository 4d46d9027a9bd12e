"""Strategies: which backend gets a new flow. One small file a strategy; the registry is here.

    rr        next in turn
    wrr       smooth weighted round robin
    weighted  the backend with the fewest flows per unit of weight (loaded's meaning)

A strategy lives in one worker; ``worker`` (0, 1, …) lets the workers' turns start apart, so that
a few flows spread over several workers still spread over the backends.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.core.strategies.base import NewFlow, Strategy
from paraglider.core.strategies.rr import RoundRobin
from paraglider.core.strategies.weighted import LeastFlows
from paraglider.core.strategies.wrr import SmoothRoundRobin

STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "rr": RoundRobin,
    "wrr": SmoothRoundRobin,
    "weighted": LeastFlows,
}


def create(name: str, worker: int = 0) -> Strategy:
    """The strategy called ``name`` for worker number ``worker``; KeyError where there is none."""
    return STRATEGIES[name](worker)


__all__ = ["STRATEGIES", "NewFlow", "Strategy", "create"]
