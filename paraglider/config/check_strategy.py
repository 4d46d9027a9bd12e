"""Checks of a service's strategy: its name, its parameters, its seed.

Lives here: ``check_strategy``, ``check_parameters`` (of a strategy or a probe), and ``weighing``
for remedies.
Rules: all properties come from the classes in ``core.strategies``. ``host.policies`` checks whether
a policy exists and takes its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Service
from paraglider.config.strategy import POLICY
from paraglider.config.wording import did_you_mean, shown, ticked
from paraglider.core.parameter import Parameter
from paraglider.core.strategies import ALIASES, KINDS, Strategy


def check_strategy(path: Path, service: Service) -> Iterator[Problem]:
    """The problems of the strategy of ``service`` (at ``path``), its parameters and seed."""
    name, strategy = service.strategy, service.strategy_class
    needs = ((*path, "strategy"),)
    if "seed" in service.model_fields_set and not strategy.uses_seed:
        what = f"`seed` has no meaning with `strategy: {name}`"
        remedy = f"leave `seed` out, or use {_either(lambda each: each.uses_seed)}"
        yield Problem((*path, "seed"), what, remedy, at="key", needs=needs)
    if name in KINDS:
        place, owner = (*path, "strategy_parameters"), f"`strategy: {name}`"
        given = service.strategy_parameters
        yield from check_parameters(place, owner, strategy.parameters, given, needs[0])
    elif not POLICY.fullmatch(name):
        hint = did_you_mean(name, [*KINDS, *ALIASES])
        remedy = f"{hint}write one of: {', '.join(KINDS)}, package.module:Class"
        yield Problem((*path, "strategy"), f"`strategy`: {shown(name)} is not known", remedy)


def check_parameters(
    path: Path, owner: str, known: Iterable[Parameter], given: Mapping[str, object], needs: Path
) -> Iterator[Problem]:
    """The problems of the parameters ``given`` (at ``path``) to ``owner``, which takes ``known``
    ones; they depend on the value at ``needs``.
    """
    names = {each.name: each for each in known}
    for key, value in given.items():
        place = (*path, key)
        if key not in names:
            what = f"{owner} has no parameter {ticked(key)}"
            remedy = f"its parameters are: {', '.join(names)}" if names else "leave it out"
            yield Problem(place, what, remedy, at="key", needs=(needs,))
        elif wrong := names[key].error(value):
            what, _, remedy = wrong.partition("; ")
            yield Problem(place, f"{ticked(key)}: {what}", remedy, needs=(needs,))


def weighing() -> str:
    """The strategies for which weights have an effect, as a remedy names them."""
    return _either(lambda each: each.weighs)


def _either(fits: Callable[[type[Strategy]], bool]) -> str:
    """The names of the strategies for which ``fits`` is true: "`a`, `b` or `c`"."""
    *others, last = (f"`strategy: {name}`" for name, each in KINDS.items() if fits(each))
    return f"{', '.join(others)} or {last}" if others else last
