"""Log lines about policies: the first fault, then once a minute; each time one is benched."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.core.flow import TCP
from paraglider.core.policy_guard import BENCH, STRIKES, PolicyGuard
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies.base import NewFlow, Strategy
from paraglider.core.strategies.rr import RoundRobin
from paraglider.daemon.shared_memory.counters import identity
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.daemon.workers import policy_watch


class Policy:
    """Picks nothing, or the first backend."""

    good = False

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Keep them."""
        self.ready = ready

    def pick(self, flow: NewFlow) -> Any:
        """The first backend, or a fault."""
        return self.ready[0] if self.good else None


class Log:
    """The log lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, message: str, **values: Any) -> None:
        """Keep a line."""
        self.lines.append((message, values))


def service(name: str, strategy: Strategy) -> VirtualService:
    """A service by that strategy."""
    return VirtualService(name, bytes(4), (TCP,), ALL_PORTS, Pool([Backend("a", b"a")]), strategy)


class Stage:
    """A service with a policy, beside one without, watched."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.guard = PolicyGuard(self.policy, RoundRobin(), lambda: 0.0, 1.0)
        self.services = [service("web", self.guard), service("plain", RoundRobin())]
        self.log = Log()
        self.poll = policy_watch.watch(lambda: self.services, self.log)

    def fail(self, now: float) -> None:
        """A pick that gives no backend, after one that does."""
        self.policy.good = True
        self.guard.pick(NewFlow(TCP, bytes(12), now))
        self.policy.good = False
        self.guard.pick(NewFlow(TCP, bytes(12), now))


@pytest.fixture
def stage() -> Stage:
    """A new one."""
    return Stage()


def test_nothing_wrong_nothing_said(stage: Stage) -> None:
    """Ticks alone log nothing."""
    for now in range(200):
        stage.poll(float(now))
    assert stage.log.lines == []
    assert policy_watch.counts(stage.services) == {}


def test_faults_are_logged_once_a_minute(stage: Stage) -> None:
    """Not per packet: the first at once, later ones together."""
    for tenth in range(1210):
        stage.fail(tenth / 10)
        stage.poll(tenth / 10)
    messages = [message for message, _ in stage.log.lines]
    assert messages == ["policy at fault, rr picked where it gave no backend"] * 3
    assert [values["wrong"] for _, values in stage.log.lines] == [1, 601, 1201]
    assert stage.log.lines[0][1] == {
        "service": "web",
        "last": "pick returned NoneType, no ready backend",
        "picked": 1,
        "wrong": 1,
    }


def test_suspensions_are_logged_each_time(stage: Stage) -> None:
    """Also within the minute after another line."""
    stage.fail(0.0)
    stage.poll(0.0)
    for now in (1.0, 1.0 + BENCH):
        for _ in range(STRIKES):
            stage.guard.pick(NewFlow(TCP, bytes(12), now))
        stage.poll(now)
        stage.poll(now)
    messages = [message for message, _ in stage.log.lines]
    assert messages[1:] == ["policy benched for 30 s, rr picks"] * 2


def test_counts_for_the_last_line(stage: Stage) -> None:
    """Faults of all services together; successful picks are not counted."""
    other = Stage()
    stage.fail(0.0)
    other.fail(0.0)
    other.fail(0.0)
    assert policy_watch.counts([*stage.services, *other.services]) == {"policy_wrong": 3}


def test_a_policy_that_does_not_return_is_named(stage: Stage) -> None:
    """During a call the parent reads the service's name; a service without a policy has none."""
    life = Heartbeat()
    policy_watch.mark(stage.services, life)
    guard = stage.guard
    guard.called[0] = guard.number
    assert life.decides == identity("web")
    guard.called[0] = 0
    assert life.decides == 0
