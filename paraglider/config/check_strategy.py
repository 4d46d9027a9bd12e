"""What is wrong with the strategy of a service: its name, its parameters, its seed.

Lives here: ``check_strategy``, and ``weighing`` for remedies.
Rules: every fact is read from the classes in ``core.strategies``. Whether a policy exists, and
takes its parameters, is found by ``host.policies``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Service
from paraglider.config.strategy import POLICY
from paraglider.config.types import shown, ticked
from paraglider.core.strategies import ALIASES, KINDS, Strategy


def check_strategy(path: Path, service: Service) -> Iterator[Problem]:
    """What is wrong with the strategy of ``service`` (at ``path``), its parameters and seed."""
    name, strategy = service.strategy, service.strategy_class
    needs = ((*path, "strategy"),)
    if "seed" in service.model_fields_set and not strategy.uses_seed:
        what = f"`seed` has no meaning with `strategy: {name}`"
        remedy = f"leave `seed` out, or use {_either(lambda each: each.uses_seed)}"
        yield Problem((*path, "seed"), what, remedy, at="key", needs=needs)
    if name in KINDS:
        yield from _parameters(path, service)
    elif not POLICY.fullmatch(name):
        close = difflib.get_close_matches(name, [*KINDS, *ALIASES], n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        remedy = f"{hint}write one of: {', '.join(KINDS)}, package.module:Class"
        yield Problem((*path, "strategy"), f"`strategy`: {shown(name)} is not known", remedy)


def _parameters(path: Path, service: Service) -> Iterator[Problem]:
    known = {each.name: each for each in service.strategy_class.parameters}
    needs = ((*path, "strategy"),)
    for key, value in service.strategy_parameters.items():
        place = (*path, "strategy_parameters", key)
        if key not in known:
            what = f"`strategy: {service.strategy}` has no parameter {ticked(key)}"
            remedy = f"its parameters are: {', '.join(known)}" if known else "leave it out"
            yield Problem(place, what, remedy, at="key", needs=needs)
        elif wrong := known[key].wrong(value):
            what, _, remedy = wrong.partition("; ")
            yield Problem(place, f"{ticked(key)}: {what}", remedy, needs=needs)


def weighing() -> str:
    """The strategies for which weights have an effect, as a remedy names them."""
    return _either(lambda each: each.weighs)


def _either(fits: Callable[[type[Strategy]], bool]) -> str:
    """The names of the strategies that ``fits`` is true of: "`a`, `b` or `c`"."""
    *others, last = (f"`strategy: {name}`" for name, each in KINDS.items() if fits(each))
    return f"{', '.join(others)} or {last}" if others else last
