"""The assessor: conditions from counters, processes and pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.conditions.assessor import LATELY, REPLACEMENT, Assessor
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.hangs import SILENT
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter, Sample
from paraglider.daemon.store.backends import BackendTable, Checked
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.health.codes import Code

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}
CONFIG = Config.model_validate({"services": [{**SERVICE, "backends": ["10.0.0.1", "10.0.0.2"]}]})


class Checks(Spec):
    """A process that carries nothing."""

    role: ClassVar[str] = "checker"


class Figures:
    """A worker's own numbers, and no backends."""

    def __init__(self, **figures: int) -> None:
        self._figures = figures

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        return self._figures

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.CounterSource``."""
        yield from ()


def sample(**figures: int) -> Sample:
    """The counters of a worker."""
    counters = Counters()
    CounterWriter(counters, Figures(**figures)).tick()
    return counters.read()


class World:
    """An assessor, and a worker that serves."""

    def __init__(self) -> None:
        self.conditions = Conditions()
        self.assessor = Assessor(self.conditions)
        self.worker = Child(WorkerSpec(0, 1, CONFIG, 1, 1), pid=77)

    def update(self, now: float, **figures: int) -> dict[str, str]:
        """The severities by object, after an update with a worker that has counted ``figures``."""
        self.assessor.workers([self.worker], {0: sample(**figures)}, now)
        return self.found()

    def found(self) -> dict[str, str]:
        """The severities by object."""
        return {s.object: s.condition.severity for s in self.conditions}


@pytest.mark.parametrize(
    ("count", "severity"),
    [
        ("table_full", "unhealthy"),
        ("overflows", "degraded"),
        ("openings_dropped", "degraded"),
        ("overruns", "degraded"),
        ("unwritten", "degraded"),
        ("exhausted", "degraded"),
    ],
)
def test_a_count_is_wrong_while_it_grows(count: str, severity: str) -> None:
    """Earlier counts are no condition, and a condition ends when the counter stops."""
    world = World()
    assert world.update(10.0, **{count: 5}) == {}
    assert world.update(11.0, **{count: 6}) == {f"worker 0 on core 1, {count}": severity}
    assert world.update(11.0 + LATELY / 2, **{count: 6}) != {}
    assert world.update(11.0 + LATELY, **{count: 6}) == {}


def test_flows_near_their_bound() -> None:
    """From 80 % until below 75 %; a dead worker has no condition."""
    world = World()
    near = {"worker 0 on core 1, flows": "degraded"}
    assert world.update(1.0, active=79, bound=100) == {}
    assert world.update(2.0, active=80, bound=100) == near
    assert world.update(3.0, active=76, bound=100) == near
    assert world.update(4.0, active=74, bound=100) == {}
    assert world.update(5.0, active=0, bound=0) == {}
    world.worker.pid = 0
    assert world.update(6.0, active=90, bound=100) == {}


def test_a_service_without_a_backend_for_new_flows() -> None:
    """Drained, without weight or down; a backend that is being removed does not count."""
    world, pools = World(), BackendTable(CONFIG, 0.0)
    first, second = pools.of("web")
    pools.apply(first, Event.SET_DRAIN, "asked", 1.0)
    world.assessor.services(CONFIG, pools)
    assert world.found() == {}
    pools.set_weight(second, 0)
    world.assessor.services(CONFIG, pools)
    assert world.found() == {"service web": "unhealthy"}
    first.leaving = second.leaving = True
    world.assessor.services(CONFIG, pools)
    assert world.found() == {}


@pytest.mark.parametrize(
    ("wanted", "out", "text"),
    [
        ("50%", 2, ""),
        ("50%", 3, "2 of 5 backends take new flows, fewer than `min_ready` (50%)"),
        (4, 1, ""),
        (4, 2, "3 of 5 backends take new flows, fewer than `min_ready` (4)"),
        (9, 0, "5 of 5 backends take new flows, fewer than `min_ready` (9)"),
        ("100%", 1, "4 of 5 backends take new flows, fewer than `min_ready` (100%)"),
        (0, 4, ""),
        ("50%", 5, "no backend takes new flows"),
    ],
)
def test_a_partial_pool(wanted: int | str, out: int, text: str) -> None:
    """Degraded with fewer than `min_ready`, unhealthy without any; spares of weight 0 are none."""
    backends = [f"10.0.0.{number}" for number in range(1, 6)]
    spare = {"address": "10.0.0.9", "weight": 0}
    service = {**SERVICE, "min_ready": wanted, "backends": [*backends, spare]}
    config = Config.model_validate({"services": [service]})
    world, pools = World(), BackendTable(config, 0.0)
    for member in pools.of("web")[:out]:
        pools.apply(member, Event.SET_DRAIN, "asked", 1.0)
    world.assessor.services(config, pools)
    assert [each.condition.text.partition(";")[0] for each in world.conditions] == [text][
        : bool(text)
    ]
    assert set(world.found().values()) <= {"unhealthy" if out == 5 else "degraded"}
    assert {each.object for each in world.conditions} <= {"service web"}


def test_a_check_that_warns() -> None:
    """One line for the service, as long as a check of its backends warns."""
    world = World()
    service = {**SERVICE, "backends": ["10.0.0.1", "10.0.0.2"], "check": {"type": "https"}}
    config = Config.model_validate({"services": [service]})
    pools = BackendTable(config, 0.0)
    world.assessor.checks(config, pools)
    assert world.found() == {}
    for member in pools.of("web"):
        member.check = Checked(
            1.0, True, Code.L7OK, "fine", 0.1, "certificate expires on 2030-01-01"
        )
    world.assessor.checks(config, pools)
    (standing,) = world.conditions
    assert standing.condition.severity == "degraded"
    expected = (
        "service web: certificate expires on 2030-01-01 (backend 10.0.0.1 and 1 more); renew it"
    )
    assert standing.line == expected
    for member in pools.of("web"):
        member.check = Checked(2.0, False, Code.L4CON, "connection refused", 0.1)
    world.assessor.checks(config, pools)
    assert world.found() == {}


def test_a_service_for_which_the_kernel_has_no_room() -> None:
    """While it is to decide; the text has the remedy."""
    world, switch = World(), CarrierSwitch("")
    config = Config.model_validate(
        {"services": [{**CONFIG.services[0].model_dump(exclude_unset=True), "decide": "auto"}]}
    )
    world.assessor.deciding(config, switch)
    assert world.found() == {}
    switch.unplaced = frozenset({"web", "gone"})
    world.assessor.deciding(config, switch)
    (standing,) = world.conditions
    assert standing.line.startswith(
        "service web: the kernel has no room for its table or its ports, so a worker"
    )
    assert standing.condition.severity == "degraded"
    world.assessor.deciding(CONFIG, switch)
    assert world.found() == {}
    world.assessor.deciding(config, switch)
    switch.on = False
    world.assessor.deciding(config, switch)
    assert world.found() == {}


def test_a_process_that_does_not_serve() -> None:
    """A starting process and one that waits for its restart have different texts."""
    world = World()
    world.assessor.processes([Child(Checks(3), pid=5, report=9), world.worker], 1.0)
    assert [s.line for s in world.conditions] == ["checker: does not serve; it starts"]
    world.worker.pid = 0
    world.assessor.processes([world.worker], 1.0)
    assert [s.line for s in world.conditions] == [
        "worker 0 on core 1: does not serve; it is started again in a moment"
    ]


def test_a_process_that_is_being_replaced() -> None:
    """It is degraded after a death, and nothing after an exit that was asked for; unhealthy if its
    successor takes too long.
    """
    world, child = World(), Child(Checks(0), pid=0, started=50.0, exited=100.0)

    def severity(now: float) -> str | None:
        world.assessor.processes([child], now)
        return world.found().get("checker")

    for report, pid in ((-1, 0), (9, 5)):  # it waits for its start, it starts
        child.report, child.pid = report, pid
        for requested, before in ((True, None), (False, "degraded")):
            child.requested = requested
            assert severity(100.0) == severity(100.0 + REPLACEMENT - 0.1) == before
            assert severity(100.0 + REPLACEMENT) == "unhealthy"
    child.report = -1
    assert severity(100.0 + REPLACEMENT) is None
    child.pid, child.trouble = 0, "no memory"
    assert (severity(101.0), severity(111.0)) == ("degraded", "unhealthy")


def test_a_process_that_hangs() -> None:
    """It is degraded until it has been replaced, which is soon; a starved one is not replaced soon,
    and unhealthy then.
    """
    world, child = World(), Child(Checks(0), pid=5, exited=7.0)

    def line() -> str:
        world.assessor.processes([child], 1000.0)
        return " ".join(f"{s.condition.severity} {s.line}" for s in world.conditions)

    assert line() == ""
    child.silence = SILENT
    said = "checker: no sign of life for 2 s; it is replaced if it hangs"
    assert line() == f"degraded {said}"
    child.silence = REPLACEMENT
    assert line() == f"unhealthy {said.replace('2', '10')}"
    child.silence, child.hung = 4.0, True
    assert line() == "degraded checker: hangs, no sign of life for 4 s; it is being replaced"


def test_a_process_that_keeps_dying() -> None:
    """Is unhealthy, also while it is up between two deaths, until it has lived for long enough."""
    world, child = World(), Child(Checks(0), pid=5)
    for at in (10.0, 20.0):
        child.deaths.append(at)
    world.assessor.processes([child], 20.0)
    assert world.found() == {}
    child.deaths.append(65.0)
    world.assessor.processes([child], 69.0)
    assert [s.line for s in world.conditions] == [
        "checker: has died 3 times within 60 s; the log has the reason"
    ]
    assert world.found() == {"checker": "unhealthy"}
    world.assessor.processes([child], 70.0)
    assert world.found() == {}
