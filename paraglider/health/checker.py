"""The checker: probes every target when its check is due, and reports the results.

Each target has an asyncio task: it sleeps until a check is due, waits for one of AT_ONCE slots,
probes, and reports. Failover is one more task. A backend is up if it is up by its own check, by
its agent and by failover; each change is reported once.

Lives here: ``Checker``.
Rules: the supervisor can send all state of the checker again. Resources of the host are opened in
``__init__`` (certificates) or passed to it (``echo``), so that the process can give up its
privileges before ``start``. An internal error of a task sets the future that ``start`` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from paraglider.config.health import Check
from paraglider.core.pool import Event
from paraglider.health import failover
from paraglider.health.agents import Agents
from paraglider.health.pinger import Pinger
from paraglider.health.probes import KINDS
from paraglider.health.probes.base import Probe, run_check
from paraglider.health.results import (
    AgentReport,
    CheckEvent,
    CheckReport,
    DiscoveredHost,
    HealthChange,
)
from paraglider.health.rise_and_fall import RiseAndFall, Thresholds
from paraglider.health.sweep import Sweep
from paraglider.health.targets import Key, Scope, Target
from paraglider.health.tasks import GuardedTasks

#: concurrent checks of all kinds; each takes one or two descriptors
AT_ONCE: Final = 1024
#: concurrent programs (exec): each is a process
PROGRAMS_AT_ONCE: Final = 16


class Checker:
    """All targets of one Paraglider; ``notify`` takes the results.

    ``echo`` is None where no ping is needed. ``probes`` and ``chance`` are for tests.
    """

    def __init__(
        self,
        notify: Callable[[CheckReport | HealthChange | DiscoveredHost | AgentReport], None],
        echo: Pinger | None = None,
        *,
        probes: Mapping[str, Probe] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._notify = notify
        self._echo = echo
        self._probes = probes or {name: kind(echo) for name, kind in KINDS.items()}
        self._chance = chance
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._programs = asyncio.Semaphore(PROGRAMS_AT_ONCE)
        self._targets: dict[Key, Target] = {}
        self._checks: dict[Key, _Checked] = {}
        self._up: dict[Key, bool] = {}  # as last reported
        self._scope: Scope | None = None
        self._sweep_state: Sweep | None = None
        self._failover: asyncio.Task[None] | None = None
        self._tasks = GuardedTasks()
        self._agents = Agents(notify, self._report_verdict, self._slots, self._tasks, chance)

    async def start(self) -> asyncio.Future[None]:
        """Prepare the probes on the running loop; the future gets the internal error of a task."""
        broken = self._tasks.start()
        for probe in self._probes.values():
            await probe.start()
        if self._echo is not None:
            self._echo.start()
        return broken

    async def close(self) -> None:
        """Stop all checks, and close the probes."""
        tasks = [check.task for check in self._checks.values() if check.task is not None]
        tasks += self._agents.tasks
        if self._failover is not None:
            tasks.append(self._failover)
        await self._tasks.close(tasks)
        self._checks.clear()
        for probe in self._probes.values():
            await probe.close()
        if self._echo is not None:
            self._echo.close()

    def hint(self, keys: Iterable[Key]) -> None:
        """Check these backends sooner; backends without a check are ignored."""
        now = time.monotonic()
        for key in keys:
            check = self._checks.get(key)
            if check is not None and check.machine.hint(now):
                check.wake()

    def update(
        self,
        changed: Iterable[Target],
        scope: Scope | None = None,
        gone: Iterable[Key] = (),
        *,
        whole: bool = True,
    ) -> None:
        """Check the targets in ``changed``, and stop checking those in ``gone``; with ``whole``,
        stop checking all that are not in ``changed``. ``scope`` turns failover on, None off.
        """
        now = time.monotonic()
        targets = {target.key: target for target in changed}
        for key in self._targets.keys() - targets.keys() if whole else set(gone):
            self._targets.pop(key, None)
            self._up.pop(key, None)
            self._forget(key)
            self._agents.forget(key)
        self._targets |= targets
        for key, target in targets.items():
            self._up.setdefault(key, target.up)
            self._agents.update(target)
            if target.check is None:
                self._forget(key)
            else:
                self._watch_target(target, target.check, now)
        self._apply_scope(scope, now)
        for key in targets:
            self._report_verdict(key, "no longer checked", now)

    def _watch_target(self, target: Target, check: Check, now: float) -> None:
        rules = Thresholds(check.interval, check.rise, check.fall)
        known = self._checks.get(target.key)
        if known is None:
            machine = RiseAndFall(rules, now, self._chance(), up=target.up)
            known = self._checks[target.key] = _Checked(target, check, machine)
            known.task = self._tasks.spawn(self._check_target(known))
        elif (known.target.address, known.target.port, known.check) != (
            target.address,
            target.port,
            check,
        ):
            known.target, known.check = target, check
            known.machine.set_rules(rules, now)
            known.machine.due = now
            known.wake()

    def _forget(self, key: Key) -> None:
        check = self._checks.pop(key, None)
        if check is not None and check.task is not None:
            check.task.cancel()

    async def _check_target(self, check: _Checked) -> None:
        """Check one target until its task is cancelled."""
        while True:
            await check.until_due()
            programs = (
                self._programs if check.check.probe.runs_program else contextlib.nullcontext()
            )
            async with programs, self._slots:
                target, machine = check.target, check.machine
                machine.check_started(time.monotonic())
                found = await run_check(self._probes[check.check.type], target)
            now = time.monotonic()
            code, detail, took, warning = found.code, found.detail, found.duration, found.warning
            self._notify(CheckReport(*target.key, found.passed, code, detail, took, now, warning))
            if found.passed is None:
                machine.due = now + machine.rules.interval
            elif machine.result(found.passed, now, self._chance()) is not None:
                self._report_verdict(target.key, f"{found.code}: {found.detail}", now)

    def _report_verdict(self, key: Key, detail: str, now: float) -> None:
        """Report a verdict if the backend's state differs from the last one reported."""
        target = self._targets[key]
        check = self._checks.get(key)
        up = (check is None or check.machine.up) and self._agents.up(key)
        if self._sweep_state is not None:
            # A found host without a state has left; it is reported again when it returns.
            up = up and self._sweep_state.up(target.address, target.up or not target.found)
        if up == self._up[key]:
            return
        self._up[key] = up
        event: CheckEvent = Event.CHECK_PASSED if up else Event.CHECK_FAILED
        held = check.machine.held_until if check is not None else 0.0
        self._notify(HealthChange(*key, event, detail, now, held))

    def _apply_scope(self, scope: Scope | None, now: float) -> None:
        """Turn failover on or off, or change its networks."""
        self._scope = scope
        if scope is None or self._echo is None:
            self._sweep_state = None
            if self._failover is not None:
                self._failover.cancel()
                self._failover = None
            return
        if self._sweep_state is None:
            self._sweep_state = Sweep(scope.failover)
        listed = {t.address for t in self._targets.values() if not t.found}
        down = {t.address for t in self._targets.values() if not t.found and not t.up}
        self._sweep_state.configure(scope.failover, listed, now, down=down)
        for target in self._targets.values():
            if target.found and target.up:
                self._sweep_state.add_joined(target.address, now)
        if self._failover is None:
            self._failover = self._tasks.spawn(self._sweep(self._echo))

    async def _sweep(self, echo: Pinger) -> None:
        """Sweep repeatedly while failover is on."""
        while self._scope is not None and self._sweep_state is not None:
            began, scope, rounds = time.monotonic(), self._scope, self._sweep_state
            answers = await failover.sweep_hosts(echo, scope, rounds.known)
            now = time.monotonic()
            for change in rounds.evaluate(answers, now):
                if not change.listed:
                    self._notify(DiscoveredHost(change.up, change.address, change.detail, now))
                    continue
                for key, target in self._targets.items():
                    if target.address == change.address:
                        self._report_verdict(key, change.detail, now)
            await asyncio.sleep(max(0.0, began + scope.failover.check_cycle - now))


class _Checked:
    """One target and its check; ``wake`` must be called when the check may be due sooner."""

    def __init__(self, target: Target, check: Check, machine: RiseAndFall) -> None:
        self.target = target
        self.check = check
        self.machine = machine
        self._sleep: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Make ``until_due`` read the due time again."""
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def until_due(self) -> None:
        """Return when the check is due."""
        loop = asyncio.get_running_loop()
        while (wait := self.machine.due - time.monotonic()) > 0:
            self._sleep = loop.create_future()
            timer = loop.call_later(wait, self.wake)
            try:
                await self._sleep
            finally:
                timer.cancel()
