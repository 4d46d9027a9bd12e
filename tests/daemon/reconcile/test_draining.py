"""Backends that left are let go of with their last flow, whoever counts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.draining import PAUSE, DrainReconciler
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.daemon.store.backends import Key
from paraglider.daemon.store.draining import merge
from paraglider.errors import PlatformError
from paraglider.netfilter.rules.marks import backend_marks

KEY = ("web", "10.0.0.2")


def config(*backends: str) -> Config:
    """An offloaded service."""
    service = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
    return Config.model_validate({"services": [{**service, "backends": list(backends)}]})


class Controller:
    """A hub whose kernel counts connections when it is asked."""

    def __init__(self) -> None:
        self.config, leaving = merge(config("10.0.0.1", "10.0.0.2"), config("10.0.0.1"))
        assert leaving == {KEY}
        self.asked: list[Callable[[Mapping[int, int] | None], object]] = []
        self.trouble: Exception | None = None
        self.departures = DrainReconciler(self, cast(HostRequests, self))
        self.departures.put(leaving, 0.0)
        self.mark = backend_marks(self.config)["web"][1]
        self.starting = False

    def count(self, then: Callable[[Mapping[int, int] | None], object]) -> None:
        """See ``HostRequests``."""
        self.asked.append(then)

    def processes(self) -> list[Child]:
        """One worker, which may be starting."""

        class Worker:
            spec = type("Spec", (), {"role": "worker", "counters": None})
            serves = not self.starting

        return [cast(Child, Worker)]

    def go_on_with(self, new: Config, leaving: frozenset[Key], again: Any) -> None:
        """See ``Controller``."""
        if self.trouble is not None:
            raise self.trouble
        self.config = new
        self.departures.put(leaving, 10.0)

    def names(self) -> list[str]:
        """The backends at work."""
        return [backend.name for backend in self.config.services[0].backends]


def test_with_the_last_connection() -> None:
    """Not while there is one, nor while nobody knows."""
    hub = Controller()
    hub.departures.look(PAUSE / 2)
    assert hub.asked == []
    hub.departures.look(PAUSE)
    for counts in ({hub.mark: 1}, None):
        hub.asked[-1](counts)
        assert hub.names() == ["10.0.0.1", "10.0.0.2"]
    hub.asked[-1]({7: 1})
    assert hub.names() == ["10.0.0.1"]


def test_not_while_a_worker_starts() -> None:
    """It may know of more; also one that began to while the kernel counted."""
    hub = Controller()
    hub.starting = True
    hub.departures.look(PAUSE)
    assert hub.asked == []
    hub.starting = False
    hub.departures.look(2 * PAUSE)
    hub.starting = True
    hub.asked[-1]({})
    assert hub.names() == ["10.0.0.1", "10.0.0.2"]


def test_the_host_first() -> None:
    """While it is being changed it waits, and goes on without counting again."""
    hub = Controller()
    hub.departures.look(PAUSE)
    hub.trouble = HostPendingError()
    hub.asked[-1]({})
    assert hub.names() == ["10.0.0.1", "10.0.0.2"]
    hub.trouble = None
    hub.departures.look(PAUSE)
    assert hub.names() == ["10.0.0.1"]
    assert len(hub.asked) == 1


@pytest.mark.parametrize("trouble", [PlatformError("nft said no"), OSError(5, "I/O")])
def test_a_host_that_refuses(trouble: Exception) -> None:
    """Is logged, and it is tried again with the next count."""
    hub = Controller()
    hub.departures.look(PAUSE)
    hub.trouble = trouble
    with structlog.testing.capture_logs() as logged:
        hub.asked[-1]({})
    assert [line["event"] for line in logged] == ["backends that left stay for now"]
    hub.trouble = None
    hub.departures.look(2 * PAUSE)
    hub.asked[-1]({})
    assert hub.names() == ["10.0.0.1"]
