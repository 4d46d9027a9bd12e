"""Strategies: which backend gets a new flow. One module per strategy, found in this folder.

Lives here: ``KINDS`` (the class of each name), ``STRATEGIES`` (their factories), ``create``,
``canonical``. Every module of this package is imported; a subclass of ``Strategy`` that is defined
there is a strategy under its ``name``. A policy, a class of the operator, is wrapped in a guard
(``core.policy_guard``) and added to a registry of its own (``host.policies``).

Each worker has its own instances. Strategies that take turns or count start at a different backend
in each worker, so that few flows over several workers still spread over the backends. Strategies
that hash have no state: every worker and every machine with the same seed picks the same backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from paraglider.core.parameter import Parameter, found_in
from paraglider.core.strategies.base import Context, NewFlow, Strategy

Factory = Callable[[Context], Strategy]
Registry = Mapping[str, Factory]


def _by_name() -> dict[str, type[Strategy]]:
    found: dict[str, type[Strategy]] = {}
    aliases: dict[str, type[Strategy]] = {}
    for each in found_in(__name__, __path__, Strategy):
        found[each.name] = each if each.name not in found else _clash(each, found[each.name])
        for alias in each.aliases:
            aliases[alias] = each if alias not in aliases else _clash(each, aliases[alias])
    for name in found.keys() & aliases.keys():
        _clash(found[name], aliases[name])
    for each in found.values():
        stand_in = each.in_kernel
        if stand_in is not None and (
            stand_in not in found or found[stand_in].in_kernel != stand_in
        ):
            raise ImportError(f"{each.__module__}: the kernel has no strategy `{stand_in}`")
    return found


def _clash(one: type[Strategy], other: type[Strategy]) -> type[Strategy]:
    raise ImportError(f"{one.__module__} and {other.__module__} have the same name or alias")


def make(strategy: type[Strategy], context: Context) -> Strategy:
    """An instance of ``strategy`` for one service in one worker."""
    return strategy(**context.keywords())


#: the class of each strategy by its name
KINDS: Final[Mapping[str, type[Strategy]]] = _by_name()
#: the name of the strategy that each alias stands for
ALIASES: Final[Mapping[str, str]] = {
    alias: name for name, each in KINDS.items() for alias in each.aliases
}
STRATEGIES: Final[Registry] = {name: partial(make, each) for name, each in KINDS.items()}

_ALONE: Final = Context()


def canonical(name: str) -> str:
    """The name that ``name`` is an alias of; any other name as it is."""
    return ALIASES.get(name, name)


def create(name: str, context: Context = _ALONE, registry: Registry = STRATEGIES) -> Strategy:
    """The strategy called ``name`` in ``registry``; raises KeyError for an unknown name.

    ``registry`` has more than STRATEGIES if policies were loaded.
    """
    return registry[name](context)


__all__ = [
    "ALIASES",
    "KINDS",
    "STRATEGIES",
    "Context",
    "Factory",
    "NewFlow",
    "Parameter",
    "Registry",
    "Strategy",
    "canonical",
    "create",
]
