"""Tests of ``paraglider.health.checker``: which targets are checked, when, and the reports.

Probes are functions that read a table; no test waits for a time, only for reports of the checker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.config.health import Check, Failover
from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.health import failover
from paraglider.health.checker import AT_ONCE, PROGRAMS_AT_ONCE, Checker
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep, UnableError
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.sweep import SweepResult
from paraglider.health.targets import Scope, Target

QUICK: dict[str, Any] = {"interval": 0.1, "timeout": 30, "rise": 2, "fall": 2}


def target(number: int = 1, *, up: bool = True, found: bool = False, **check: Any) -> Target:
    """The target 10.0.0.NUMBER of the service `web`; without a check for None."""
    address = ipaddress.ip_address(0x0A000000 + number)
    checked = None if check.get("type", "") is None else Check(**{**QUICK, **check})
    return Target("web", str(address), address, 80, checked, up, found)


News = CheckReport | HealthChange | DiscoveredHost


class ProbeOf(Probe):
    """A probe that is ``check``."""

    def __init__(self, check: Callable[[Target, ProbeStep], Awaitable[Passed]]) -> None:
        super().__init__()
        self._check = check

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """See ``check``."""
        return await self._check(target, step)


class World:
    """The health of the backends, and the reports of the checker."""

    def __init__(self) -> None:
        self.ill: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.news: list[News] = []
        self.replied = asyncio.Event()
        self.under_way = 0
        self.most = 0
        self.gate: asyncio.Event | None = None

    async def probe(self, target: Target, step: ProbeStep) -> Passed:
        """Pass or fail by the table."""
        self.asked.append(target.backend)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if target.backend in self.ill:
            raise self.ill[target.backend]
        return Passed(Code.L4OK, "well")

    def notify(self, news: News) -> None:
        """Receive a report."""
        self.news.append(news)
        self.replied.set()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for it."""
        async with asyncio.timeout(TIMEOUT):
            while not true():
                self.replied.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.replied.wait()

    @property
    def verdicts(self) -> list[tuple[str, Event]]:
        """The changes of health so far."""
        return [(n.backend, n.event) for n in self.news if isinstance(n, HealthChange)]

    @property
    def reports(self) -> list[CheckReport]:
        """The results of checks so far."""
        return [n for n in self.news if isinstance(n, CheckReport)]


def tale(body: Callable[[World, Checker], Awaitable[None]], echo: Any = None) -> World:
    """Run ``body`` with a running checker, which must not fail."""
    world = World()

    @contextlib.asynccontextmanager
    async def checking() -> AsyncIterator[Checker]:
        names = ("tcp", "http", "https", "icmp", "exec")
        probes = dict.fromkeys(names, ProbeOf(world.probe))
        checker = Checker(world.notify, echo, probes=probes, chance=lambda: 0.0)
        broken = await checker.start()
        try:
            yield checker
            assert not broken.done(), broken.exception()
        finally:
            await checker.close()

    async def run() -> None:
        async with checking() as checker:
            await body(world, checker)

    asyncio.run(run())
    return world


def test_down_and_up() -> None:
    """A backend that fails is reported down once, and up once when it passes again."""

    async def body(world: World, checker: Checker) -> None:
        checker.update((target(1), target(2)))
        await world.until(lambda: len(world.reports) >= 4)
        assert world.verdicts == []
        world.ill["10.0.0.2"] = ProbeError(Code.L7STS, "status 503, expected 200-399")
        await world.until(lambda: world.verdicts)
        assert world.verdicts == [("10.0.0.2", Event.CHECK_FAILED)]
        verdict = next(n for n in world.news if isinstance(n, HealthChange))
        assert verdict.detail == "L7STS: status 503, expected 200-399"
        world.ill.clear()
        await world.until(lambda: len(world.verdicts) > 1)
        assert world.verdicts[1:] == [("10.0.0.2", Event.CHECK_PASSED)]

    world = tale(body)
    last = [r for r in world.reports if r.backend == "10.0.0.1"][-1]
    assert (last.passed, last.detail) == (True, "well")
    assert last.duration >= 0
    assert last.at > 0


def test_a_check_that_could_not_be_made() -> None:
    """A check that could not be made is reported, and changes no state."""

    async def body(world: World, checker: Checker) -> None:
        checker.update((target(1), target(2, up=False)))
        world.ill = {f"10.0.0.{n}": UnableError("no descriptors") for n in (1, 2)}
        await world.until(lambda: len(world.reports) >= 8)

    world = tale(body)
    assert world.verdicts == []
    assert {report.passed for report in world.reports} == {None}


def test_hint() -> None:
    """After a hint a backend is checked long before it is due; a hint about an unknown one is
    ignored.
    """

    async def body(world: World, checker: Checker) -> None:
        checker.update((target(1, interval=1000),))
        await world.until(lambda: len(world.reports) == 1)
        checker.hint([("web", "10.9.9.9"), ("web", "10.0.0.1")])
        await world.until(lambda: len(world.reports) == 2)

    tale(body)


def test_update_keeps_what_is_known() -> None:
    """After an update a backend that is down is not reported up, and a removed one is no longer
    checked.
    """

    async def body(world: World, checker: Checker) -> None:
        world.ill["10.0.0.1"] = ProbeError(Code.L4CON, "refused")
        checker.update((target(1), target(2)))
        await world.until(lambda: world.verdicts)
        checker.update((target(1, interval=0.2), target(3)))
        seen = len(world.asked)
        await world.until(lambda: world.asked[seen:].count("10.0.0.3") >= 3)
        assert "10.0.0.2" not in world.asked[seen + 1 :]
        assert world.verdicts == [("10.0.0.1", Event.CHECK_FAILED)]
        world.ill.clear()
        await world.until(lambda: len(world.verdicts) == 2)

    assert tale(body).verdicts[-1] == ("10.0.0.1", Event.CHECK_PASSED)


def test_a_restarted_checker() -> None:
    """A backend that is down in the store comes up by passing checks."""

    async def body(world: World, checker: Checker) -> None:
        checker.update((target(1, up=False),))
        await world.until(lambda: world.verdicts)
        assert len(world.reports) == 2

    assert tale(body).verdicts == [("10.0.0.1", Event.CHECK_PASSED)]


def test_a_check_that_is_taken_away() -> None:
    """A backend whose check is removed is up."""

    async def body(world: World, checker: Checker) -> None:
        world.ill["10.0.0.1"] = ProbeError(Code.L4CON, "refused")
        checker.update((target(1),))
        await world.until(lambda: world.verdicts)
        checker.update((target(1, type=None),))

    assert tale(body).verdicts[-1] == ("10.0.0.1", Event.CHECK_PASSED)


@pytest.mark.parametrize(("kind", "most"), [("tcp", AT_ONCE), ("exec", PROGRAMS_AT_ONCE)])
def test_hundreds_of_backends(kind: str, most: int) -> None:
    """All are checked, a bounded number at a time."""
    command = {"command": ["/bin/true"]} if kind == "exec" else {}
    many = [target(n, type=kind, interval=60, **command) for n in range(1, most + 100)]

    async def body(world: World, checker: Checker) -> None:
        world.gate = asyncio.Event()
        checker.update(tuple(many))
        await world.until(lambda: world.under_way == most)
        world.gate.set()
        await world.until(lambda: len({report.backend for report in world.reports}) == len(many))

    assert tale(body).most == most


def test_a_fault_of_ours_is_not_passed_over() -> None:
    """An internal error of the checker reaches its caller."""

    async def body() -> None:
        def fail(news: News) -> None:
            raise BrokenPipeError(32, "gone")

        checker = Checker(fail, probes={"tcp": ProbeOf(World().probe)})
        broken = await checker.start()
        checker.update((target(1),))
        with pytest.raises(BrokenPipeError):
            async with asyncio.timeout(TIMEOUT):
                await broken
        await checker.close()

    asyncio.run(body())


class Network:
    """Stands in for the network that failover surveys; ``echo`` for the sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive: set[str] = set()
        monkeypatch.setattr(failover, "sweep_hosts", self.sweep_hosts)

    async def sweep_hosts(
        self, echo: object, scope: Scope, known: Collection[IPAddress]
    ) -> dict[IPAddress, SweepResult]:
        """All hosts that are alive answer."""
        await asyncio.sleep(0)
        return {
            ipaddress.ip_address(address): SweepResult(True, "answers") for address in self.alive
        }

    def start(self) -> None:
        """See ``Echo``."""

    def close(self) -> None:
        """See ``Echo``."""


SCOPE = Scope(Failover(check_cycle=0.1, rise=1, fall=1))


def test_failover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends go down, hosts join and leave, by sweeps."""
    network = Network(monkeypatch)

    async def body(world: World, checker: Checker) -> None:
        network.alive = {"10.0.0.1", "10.0.0.9"}
        listed = (target(1, type=None), target(2, type=None))
        checker.update(listed, SCOPE)
        await world.until(lambda: len(world.news) == 2)
        joined = target(9, type=None, found=True)
        checker.update((*listed, joined), SCOPE)
        network.alive = {"10.0.0.1", "10.0.0.2"}
        await world.until(lambda: len(world.news) == 4)

    world = tale(body, network)
    assert world.verdicts == [("10.0.0.2", Event.CHECK_FAILED), ("10.0.0.2", Event.CHECK_PASSED)]
    found = [(n.up, str(n.address)) for n in world.news if isinstance(n, DiscoveredHost)]
    assert found == [(True, "10.0.0.9"), (False, "10.0.0.9")]


def test_a_host_that_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the supervisor still lists it, it comes up only by being discovered again."""
    network = Network(monkeypatch)

    async def body(world: World, checker: Checker) -> None:
        network.alive = {"10.0.0.1"}
        gone = target(9, type=None, found=True, up=False)
        for _ in range(3):
            checker.update((target(1, type=None), gone), SCOPE)
            await asyncio.sleep(0.15)
        network.alive.add("10.0.0.9")
        await world.until(lambda: world.news)

    world = tale(body, network)
    assert isinstance(world.news[0], DiscoveredHost)
    assert world.news[0].up


def test_failover_and_check_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend is up if its check passes and failover has it up; each change is reported once."""
    network = Network(monkeypatch)

    async def body(world: World, checker: Checker) -> None:
        network.alive = {"10.0.0.1"}
        checker.update((target(1),), SCOPE)
        await world.until(lambda: len(world.reports) >= 2)
        network.alive = set()
        await world.until(lambda: len(world.verdicts) == 1)
        world.ill["10.0.0.1"] = ProbeError(Code.L4CON, "refused")
        await world.until(lambda: sum(r.passed is False for r in world.reports) >= 3)
        network.alive = {"10.0.0.1"}
        seen = len(world.reports)
        await world.until(lambda: len(world.reports) >= seen + 5)
        assert len(world.verdicts) == 1
        world.ill.clear()
        await world.until(lambda: len(world.verdicts) == 2)

    expected = [("10.0.0.1", Event.CHECK_FAILED), ("10.0.0.1", Event.CHECK_PASSED)]
    assert tale(body, network).verdicts == expected


def test_failover_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without failover, backends that only failover had taken down are up."""
    network = Network(monkeypatch)

    async def body(world: World, checker: Checker) -> None:
        listed = (target(1, type=None),)
        checker.update(listed, SCOPE)
        await world.until(lambda: world.verdicts)
        checker.update(listed)

    assert tale(body, network).verdicts[-1] == ("10.0.0.1", Event.CHECK_PASSED)


def test_targets_that_changed_leave_the_others_alone() -> None:
    """With a difference only the removed targets are no longer checked, and
    the new ones are added.
    """

    async def body(world: World, checker: Checker) -> None:
        checker.update((target(1), target(2)))
        await world.until(lambda: {"10.0.0.1", "10.0.0.2"} <= set(world.asked))
        checker.update((target(3),), gone=[("web", "10.0.0.2")], whole=False)
        count = world.asked.count("10.0.0.2")
        more = world.asked.count("10.0.0.1") + 2
        await world.until(lambda: "10.0.0.3" in world.asked)
        await world.until(lambda: world.asked.count("10.0.0.1") >= more)
        assert world.asked.count("10.0.0.2") <= count + 1  # one may have been under way

    tale(body)
