"""What a configuration would change, found before it is applied.

A reload is applied in several steps of the supervisor's loop, so that none takes long: the file is
read, compared with the store, the host is changed for it, and then the store. The comparison is
kept from its step until the configuration is applied, unless the store changes in between.

Lives here: ``Planner``, ``ReloadPlan``.
Rules: pure; raises as ``reload.compare``.
"""

from __future__ import annotations

from dataclasses import dataclass

from paraglider.config.diff import shared
from paraglider.config.model import Config
from paraglider.config.steps import Steps
from paraglider.daemon.inputs.reload import Capabilities, ReloadOutcome, compare
from paraglider.daemon.store.store import Desired, Store
from paraglider.errors import ParagliderError


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """The ``outcome`` of applying ``config`` to the state ``before``, and the state ``after``."""

    before: Desired
    config: Config
    outcome: ReloadOutcome
    after: Desired


class Planner:
    """Plans changes of ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: ReloadPlan | None = None

    def planning(self, config: Config, able: Capabilities) -> Steps[None]:
        """Make the plan to apply ``config`` ahead, in steps; none if it is refused."""
        before = self._store.desired
        known = shared(before.wanted, self._store.discovered.into(config))
        yield
        try:
            outcome = compare(before.wanted, known, able)
        except ParagliderError:  # found again, and answered, by ``plan``
            return
        yield
        self._keep(ReloadPlan(before, config, outcome, before.replaced(outcome.config)))

    def plan(self, config: Config, able: Capabilities) -> ReloadPlan:
        """The plan to apply ``config`` and the discovered backends: the kept one if it still holds,
        else a new one.
        """
        kept, before = self._kept, self._store.desired
        if kept is None or kept.config is not config or kept.before is not before:
            known = shared(before.wanted, self._store.discovered.into(config))
            outcome = compare(before.wanted, known, able)
            kept = ReloadPlan(before, config, outcome, before.replaced(outcome.config))
        self._keep(kept)
        return kept

    def forget(self) -> None:
        """The plan has been applied, or given up."""
        self._kept = None

    def _keep(self, plan: ReloadPlan) -> None:
        """Keep ``plan``; with discovered backends, which may leave at any time, none is kept."""
        self._kept = None if len(self._store.discovered) else plan
