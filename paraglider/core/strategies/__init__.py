"""Strategies: which backend gets a new flow. One small file a strategy; the registry is here.

    rr        next in turn                                                   (``rr``)
    wrr       smooth weighted round robin                                    (``wrr``)
    weighted  the backend with the fewest flows per unit of weight           (``weighted``)
    source    hash of the client's address                                   (``source``)
    maglev    consistent hash of the flow key                                (``maglev``)
    policy    a strategy of the user's own, behind a guard                   (``guard``)

A strategy lives in one worker. The first three count, and the workers' turns start apart, so that
a few flows spread over several workers still spread over the backends; ``source`` and ``maglev``
remember nothing, and every worker and every machine with the same seed picks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from paraglider.core.strategies.base import Context, NewFlow, Strategy
from paraglider.core.strategies.maglev import Maglev
from paraglider.core.strategies.rr import RoundRobin
from paraglider.core.strategies.source import SourceHash
from paraglider.core.strategies.weighted import LeastFlows
from paraglider.core.strategies.wrr import SmoothRoundRobin

Factory = Callable[[Context], Strategy]
Registry = Mapping[str, Factory]

STRATEGIES: Final[Registry] = {
    "rr": lambda context: RoundRobin(context.worker),
    "wrr": lambda context: SmoothRoundRobin(context.worker),
    "weighted": lambda context: LeastFlows(context.worker),
    "source": lambda context: SourceHash(context.seed),
    "maglev": lambda context: Maglev(context.seed),
}

_ALONE: Final = Context()


def create(name: str, context: Context = _ALONE, registry: Registry = STRATEGIES) -> Strategy:
    """The strategy called ``name`` in ``registry``; KeyError where there is none.

    ``registry`` has more than STRATEGIES where policies were loaded.
    """
    return registry[name](context)


__all__ = ["STRATEGIES", "Context", "Factory", "NewFlow", "Registry", "Strategy", "create"]
