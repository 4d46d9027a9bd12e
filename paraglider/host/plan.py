"""Plans the changes that a configuration needs, given the host and an earlier set-up.

Lives here: ``make_plan``; its parts are in ``plan_filter`` and ``plan_links``.
Rules: planning only reads. Order: first the tables and rules, so that no packet for a VIP reaches
the local stack, then sysctls, addresses, neighbours, routing. The records of an earlier set-up keep
the original values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from paraglider.config.model import Config
from paraglider.host.changes.base import Change, Host
from paraglider.host.changes.directory import DirectoryChange
from paraglider.host.checks import DEFAULT_CHROOT
from paraglider.host.plan_filter import filter_steps
from paraglider.host.plan_links import link_steps
from paraglider.host.step import Step, undo_plan


def make_plan(
    config: Config,
    families: frozenset[int],
    cores: tuple[int, ...],
    seed: int,
    host: Host,
    earlier: Iterable[Change],
) -> list[Step]:
    """The steps that bring the host to ``config`` for ``families``, given the ``earlier`` changes.

    Without ``cores`` there is no daemon: the kernel balances alone, and ``config`` is the result of
    ``forward.static.checks.kernel_only``. Changes of an earlier set-up for these families that are
    no longer needed are reverted first.
    """
    records = {change.identity: change for change in earlier}
    scope = config.for_families(families)
    wanted: list[Step] = [*_directory(config)] if cores else []
    for family in sorted(families):
        if not any(service.family == family for service in scope.services):
            continue
        wanted += filter_steps(scope, family, cores, seed, host, records)
        wanted += link_steps(scope, family, host, records)
    names = {step.change.identity for step in wanted}
    stale = [c for c in records.values() if c.family in families and c.identity not in names]
    return [*undo_plan(stale), *wanted]


def _directory(config: Config) -> Iterator[Step]:
    if config.chroot == DEFAULT_CHROOT and not Path(DEFAULT_CHROOT).exists():
        yield Step("apply", DirectoryChange(config.services[0].family, DEFAULT_CHROOT))
