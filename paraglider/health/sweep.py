"""Failover's sweeps: from the results of a sweep to backends that go down, return, join or leave.

    listed   in the file: up until its first result; goes down and comes back
    found    not in the file: joins after ``rise`` passes if discovery is on; leaves after ``fall``
             failures

``rise_and_fall`` decides about up and down, with a sweep as a check, so flapping hosts are held
down too.

Lives here: ``Sweep``, ``SweepResult``, ``SweepChange``.
Rules: pure; time is an argument. At most MOST hosts that are not listed are stored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from paraglider.config.health import Failover
from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.health.rise_and_fall import RiseAndFall, Thresholds

#: most hosts that are not listed
MOST: Final = 256


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The result of a sweep for one host, with a line of detail."""

    alive: bool
    detail: str


@dataclass(frozen=True, slots=True)
class SweepChange:
    """A host went up or down; ``listed`` is whether it is in the file."""

    address: IPAddress
    up: bool
    listed: bool
    detail: str


_SILENT: Final = SweepResult(alive=False, detail="no answer to ping")


class Sweep:
    """The hosts of one network."""

    def __init__(self, failover: Failover) -> None:
        self._settings = failover
        self._listed: dict[IPAddress, RiseAndFall] = {}
        self._others: dict[IPAddress, RiseAndFall] = {}

    @property
    def known(self) -> frozenset[IPAddress]:
        """The hosts that are pinged individually: the listed, and those that have joined."""
        joined = (address for address, machine in self._others.items() if machine.up)
        return frozenset((*self._listed, *joined))

    def up(self, address: IPAddress, unknown: bool = True) -> bool:
        """Whether a known host is up; ``unknown`` for any other host."""
        machine = self._listed.get(address) or self._others.get(address)
        return unknown if machine is None else machine.up

    def configure(
        self,
        failover: Failover,
        listed: Iterable[IPAddress],
        now: float,
        *,
        down: Container[IPAddress] = (),
    ) -> None:
        """Set new settings and listed hosts; the state of known hosts stays.

        New hosts that are in ``down`` begin as down.
        """
        self._settings = failover
        before, self._listed = self._listed, {}
        for address in listed:
            machine = before.get(address) or self._others.pop(address, None)
            self._listed[address] = machine or self._machine(now, up=address not in down)
        for machine in (*self._listed.values(), *self._others.values()):
            machine.set_rules(self._rules, now)

    def add_joined(self, address: IPAddress, now: float) -> None:
        """Add a host that an earlier process found."""
        if address not in self._listed:
            self._others.setdefault(address, self._machine(now, up=True))

    def evaluate(self, answers: Mapping[IPAddress, SweepResult], now: float) -> list[SweepChange]:
        """Evaluate the results of a sweep; hosts without one were silent."""
        changes: list[SweepChange] = []
        for address, machine in self._listed.items():
            answer = answers.get(address, _SILENT)
            if self._record(machine, answer, now) is not None:
                changes.append(SweepChange(address, machine.up, True, answer.detail))
        if self._settings.discover:
            self._add_new(answers, now)
        for address, machine in list(self._others.items()):
            answer = answers.get(address, _SILENT)
            if self._record(machine, answer, now) is not None:
                changes.append(SweepChange(address, machine.up, False, answer.detail))
            elif not machine.up and not answer.alive and now >= machine.held_until:
                del self._others[address]  # it never joined, or has left
        return changes

    @property
    def _rules(self) -> Thresholds:
        settings = self._settings
        return Thresholds(settings.check_cycle, settings.rise, settings.fall)

    def _machine(self, now: float, *, up: bool) -> RiseAndFall:
        return RiseAndFall(self._rules, now, 0.0, up=up)

    def _add_new(self, answers: Mapping[IPAddress, SweepResult], now: float) -> None:
        """Add hosts that are not known yet."""
        for address, answer in answers.items():
            if len(self._others) >= MOST:
                return
            if answer.alive and address not in self._listed and address not in self._others:
                self._others[address] = self._machine(now, up=False)

    @staticmethod
    def _record(machine: RiseAndFall, answer: SweepResult, now: float) -> Event | None:
        machine.check_started(now)
        return machine.result(answer.alive, now, 0.0)
