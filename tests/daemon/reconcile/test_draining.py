"""Draining backends are removed with their last flow, for every carrier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any, cast

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.draining import PAUSE, DrainReconciler, without_flows
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter, Sample
from paraglider.daemon.stats.traffic import TrafficCounters
from paraglider.daemon.store.store import Desired, Store
from paraglider.errors import PlatformError
from paraglider.netfilter.rules.marks import backend_marks

KEY = ("web", "10.0.0.2")


def config(*backends: str) -> Config:
    """An offloaded service."""
    service = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
    return Config.model_validate({"services": [{**service, "backends": list(backends)}]})


class Controller:
    """A controller whose kernel counts connections on request."""

    def __init__(self) -> None:
        self.store = Store(config("10.0.0.1", "10.0.0.2"), 0.0)
        self.store.apply(self.store.desired.replaced(config("10.0.0.1")), 0.0)
        assert self.store.desired.keys == {KEY}
        self.asked: list[Callable[[Mapping[int, int] | None], object]] = []
        self.trouble: Exception | None = None
        self.draining = DrainReconciler(
            self.store, self.processes, self.apply, cast(HostRequests, self)
        )
        self.draining.reconcile(0.0)
        self.mark = backend_marks(self.store.config)["web"][1]
        self.starting = False

    def count(self, then: Callable[[Mapping[int, int] | None], object]) -> None:
        """See ``HostRequests``."""
        self.asked.append(then)

    def processes(self) -> list[Child]:
        """One worker, which may be starting."""

        class Worker:
            spec = type("Spec", (), {"role": "worker", "counters": None})
            up = not self.starting

        return [cast(Child, Worker)]

    def apply(self, desired: Desired, again: Any) -> None:
        """See ``Controller``."""
        if self.trouble is not None:
            raise self.trouble
        self.store.apply(desired, 1.0)

    def names(self) -> list[str]:
        """The backends at work."""
        return [backend.name for backend in self.store.config.services[0].backends]


def test_with_the_last_connection() -> None:
    """Not while there is one, nor while the count is unknown."""
    controller = Controller()
    controller.draining.reconcile(PAUSE / 2)
    assert controller.asked == []
    controller.draining.reconcile(PAUSE)
    for counts in ({controller.mark: 1}, None):
        controller.asked[-1](counts)
        assert controller.names() == ["10.0.0.1", "10.0.0.2"]
    controller.asked[-1]({7: 1})
    assert controller.names() == ["10.0.0.1"]


def test_not_while_a_worker_starts() -> None:
    """It may have more flows; also if it started during the count."""
    controller = Controller()
    controller.starting = True
    controller.draining.reconcile(PAUSE)
    assert controller.asked == []
    controller.starting = False
    controller.draining.reconcile(2 * PAUSE)
    controller.starting = True
    controller.asked[-1]({})
    assert controller.names() == ["10.0.0.1", "10.0.0.2"]


def test_the_host_first() -> None:
    """While it is being changed the removal waits, and continues without another count."""
    controller = Controller()
    controller.draining.reconcile(PAUSE)
    controller.trouble = HostPendingError()
    controller.asked[-1]({})
    assert controller.names() == ["10.0.0.1", "10.0.0.2"]
    controller.trouble = None
    controller.draining.reconcile(PAUSE)
    assert controller.names() == ["10.0.0.1"]
    assert len(controller.asked) == 1


@pytest.mark.parametrize("trouble", [PlatformError("nft said no"), OSError(5, "I/O")])
def test_a_host_that_refuses(trouble: Exception) -> None:
    """The error is logged, and the removal is tried again with the next count."""
    controller = Controller()
    controller.draining.reconcile(PAUSE)
    controller.trouble = trouble
    with structlog.testing.capture_logs() as logged:
        controller.asked[-1]({})
    assert [line["event"] for line in logged] == ["draining backends: not removed, tried again"]
    controller.trouble = None
    controller.draining.reconcile(2 * PAUSE)
    controller.asked[-1]({})
    assert controller.names() == ["10.0.0.1"]


def test_counts_have_their_time() -> None:
    """Every few seconds while anything drains."""
    controller = Controller()
    assert controller.draining.reconcile(1.0) == PAUSE - 1
    controller.draining.reconcile(PAUSE)
    controller.draining.reconcile(PAUSE + 0.1)
    assert len(controller.asked) == 1
    controller.asked[-1]({})
    assert controller.draining.reconcile(PAUSE + 0.2) == inf


TWO = {"backends": ["10.0.0.1", "10.0.0.2"]}


def services(*some: dict[str, Any]) -> Config:
    """A configuration of these services, each on a port of its own."""
    base = {"vip": "192.0.2.1/24", "protocol": "tcp"}
    whole = [
        {"name": f"s{i}", **base, "ports": 80 + i, "backends": [f"10.0.{i}.1"], **s}
        for i, s in enumerate(some)
    ]
    return Config.model_validate({"services": whole})


def counted(flows: int) -> Sample:
    """The counters of a worker with these flows to the second backend."""

    class Source:
        """See ``counters.CounterSource``."""

        def figures(self) -> dict[str, int]:
            """No counters."""
            return {}

        def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
            """Both backends."""
            yield "s0", "10.0.0.1", {"flows": 0}
            yield "s0", "10.0.0.2", {"flows": flows}

    counters = Counters()
    CounterWriter(counters, Source()).tick()
    return counters.read()


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_the_last_flow(forward: str) -> None:
    """A backend is removed when no process has a flow to it, and not while a count is unknown."""
    desired = Desired(services({**TWO, "forward": forward})).replaced(
        services({"forward": forward})
    )
    merged, keys = desired.config, desired.keys

    def over(flows: int) -> frozenset[tuple[str, str]]:
        if forward == "offload":
            mark = backend_marks(merged)["s0"][1]
            return without_flows(merged, keys, TrafficCounters({}), {mark: flows} if flows else {})
        return without_flows(merged, keys, TrafficCounters({3: counted(flows)}), {})

    assert over(2) == frozenset()
    assert over(0) == keys
    if forward == "nat":
        assert without_flows(merged, keys, TrafficCounters({}), {}) == frozenset()
