"""Results of checks as a source of facts, with a controller made of air."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.daemon.inputs.health import SETTLED, HealthInput
from paraglider.daemon.messages import HealthNews, Message, SetTargets
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.checks import CheckReconciler
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.store.backends import SETTABLE, BackendRecord, BackendTable
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.daemon.store.store import Store
from paraglider.errors import PlatformError
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.targets import Target

FIRST, NEW = "10.0.0.1", "10.0.0.77"
CHECK = {"check": {"type": "tcp"}}


class Controller:
    """Two services, and what the controller does with a configuration and a move."""

    def __init__(self, *, failover: bool = True, **changes: Any) -> None:
        common = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": [FIRST, "10.0.0.2"]}
        services = [
            {"name": "web", "ports": 80, **common, **changes},
            {"name": "mail", "ports": 25, **common},
        ]
        document = {"failover": {"enabled": failover}, "services": services}
        self.store = Store(Config.model_validate(document), 0.0)
        self.health = HealthInput(self)
        self.refuses = self.adjusting = False
        self.adopted = 0
        self.now = 0.0

    def apply_config(self, config: Config, requested_by: str, _again: object) -> None:
        """See ``Controller``."""
        if self.adjusting:
            raise HostPendingError
        if self.refuses:
            raise PlatformError("the kernel refuses")
        assert requested_by == "failover"
        self.adopted += 1
        wanted = self.discovered.into(config)
        self.store.apply(self.store.desired.replaced(wanted), 1.0)
        self.discovered.note_applied(config, wanted)

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """See ``Controller``."""
        self.pools.apply(member, event, why, 1.0)

    def hear(self, joined: bool, address: str = NEW) -> None:
        """News of a host."""
        detail = "answers" if joined else "silent"
        host = DiscoveredHost(joined, ipaddress.ip_address(address), detail, 1.0)
        self.health.handle(HealthNews(hosts=(host,)))

    def find(self, joined: bool, address: str = NEW) -> None:
        """News of a host, taken over."""
        self.hear(joined, address)
        self.settle()

    def settle(self) -> None:
        """What was found is due to be taken over."""
        self.now += SETTLED
        self.health.settle(self.now)

    def states(self, service: str = "web") -> dict[str, str]:
        """The backends of a service."""
        return {m.backend: m.state.value for m in self.pools.of(service)}

    def targets(self) -> list[Target]:
        """What the checker is told."""
        return list(self.order().targets())

    def order(self) -> SetTargets:
        """What a checker that starts is sent."""
        sent: list[Message] = []
        child = Child(MonitorSpec(1, None, 1, 1, "/"), pid=1, starts=1)
        checks = CheckReconciler(self.store, lambda: child, lambda _, message: sent.append(message))
        checks.reconcile(0.0)
        (message,) = sent
        assert isinstance(message, SetTargets)
        return message

    @property
    def discovered(self) -> DiscoveredHosts:
        """The hosts that failover found."""
        return self.store.discovered

    @property
    def config(self) -> Config:
        """All services and backends."""
        return self.store.config

    @property
    def wanted(self) -> Config:
        """Those that take new flows."""
        return self.store.wanted

    @property
    def listed(self) -> Config:
        """Those of the file."""
        return self.store.listed

    @property
    def pools(self) -> BackendTable:
        """The state of every backend."""
        return self.store.pools


def test_what_is_looked_at() -> None:
    """With failover all backends, without it those of checked services; none in maintenance."""
    assert len(Controller().targets()) == 4
    controller = Controller(failover=False, **CHECK)
    assert [t.key for t in controller.targets()] == [("web", FIRST), ("web", "10.0.0.2")]
    controller.move(controller.pools.find("web", FIRST), SETTABLE["maint"], "by hand")
    assert [t.key for t in controller.targets()] == [("web", "10.0.0.2")]
    assert controller.order().scope is None


def test_a_verdict_moves_and_a_report_is_kept() -> None:
    """Each for the backend that it names; for one that is not there nothing happens."""
    controller = Controller(**CHECK)
    for backend in (FIRST, "10.9.9.9"):
        report = CheckReport("web", backend, False, Code.L4CON, "refused", 0.1, 5.0)
        change = HealthChange("web", backend, Event.CHECK_FAILED, "refused", 5.0)
        controller.health.handle(HealthNews(reports=(report,), changes=(change,)))
    member = controller.pools.find("web", FIRST)
    assert (member.state, member.why) == (State.DOWN, "refused")
    assert member.check is not None
    assert not member.check.passed
    assert [t.up for t in controller.targets()] == [False, True, True, True]


def test_a_host_joins_leaves_and_is_back() -> None:
    """It is a backend of every service, told as found; when it has left it is no target, and its
    flows are over; it is taken in again as if it had never left.
    """
    controller = Controller()
    for _ in range(2):
        controller.find(joined=True)
        for service in ("web", "mail"):
            assert controller.states(service)[NEW] == "ready"
            assert controller.pools.find(service, NEW).weight == 1
        assert controller.pools.find("web", NEW).why == "answers"
        assert [t.key for t in controller.targets() if t.found] == [("web", NEW), ("mail", NEW)]
        controller.find(joined=False)
        assert controller.states()[NEW] == "drain-down"
        assert controller.pools.find("web", NEW).weight == 0
        assert len(controller.targets()) == 4
    assert NEW not in [str(b.address) for b in controller.wanted.services[0].backends]


def test_news_of_hosts_that_change_nothing() -> None:
    """One that is in, one that was never in, one that is listed."""
    controller = Controller()
    controller.find(joined=False)
    controller.find(joined=False, address=FIRST)
    controller.find(joined=True, address="192.168.0.11")
    assert controller.states() == {FIRST: "ready", "10.0.0.2": "ready"}
    controller.find(joined=True)
    before = controller.wanted
    controller.find(joined=True)
    assert controller.wanted is before


def test_a_host_that_cannot_be_taken_over() -> None:
    """The kernel refuses: it is not in, and may come again."""
    controller = Controller()
    controller.refuses = True
    controller.find(joined=True)
    assert NEW not in controller.states()
    controller.refuses = False
    controller.find(joined=True)
    assert controller.states()[NEW] == "ready"


def test_many_hosts_are_taken_over_at_once() -> None:
    """All that a round found is one change; without any there is none."""
    controller = Controller()
    controller.settle()
    assert controller.adopted == 0
    hosts = [f"10.0.1.{n}" for n in range(1, 100)]
    for host in hosts:
        controller.hear(joined=True, address=host)
    controller.hear(joined=False, address=hosts[0])
    controller.settle()
    assert controller.adopted == 1
    assert set(controller.states()) == {FIRST, "10.0.0.2", *hosts[1:]}
    assert set(controller.states().values()) == {"ready"}


def test_failover_is_part_of_the_order() -> None:
    """The monitor is told where to look."""
    scope = Controller(**CHECK).order().scope
    assert scope is not None
    assert scope.failover.discover


def test_a_checker_that_lies_changes_its_own_subject_alone() -> None:
    """No service that it does not check, no host but with failover, and hosts once a while, however
    fast it sends them.
    """
    controller = Controller(failover=False, check={"type": "tcp"})
    change = HealthChange("mail", FIRST, Event.CHECK_FAILED, "x", 1.0)
    controller.health.handle(HealthNews(changes=(change,)))
    controller.find(joined=True)
    assert set(controller.states().values()) | set(controller.states("mail").values()) == {"ready"}
    assert controller.adopted == 0
    controller = Controller()
    for _ in range(1000):
        controller.hear(joined=True)
        controller.health.settle(1.0)
        controller.hear(joined=False)
        controller.health.settle(1.0)
    assert controller.adopted == 1


def test_a_check_of_tomorrow_is_of_now() -> None:
    """Where the checker's clock is nonsense, the time that is shown is not."""
    controller = Controller(check={"type": "tcp"})
    report = CheckReport("web", FIRST, True, Code.L4OK, "ok", 0.1, 9e9)
    controller.health.handle(HealthNews(reports=(report,)))
    check = controller.pools.find("web", FIRST).check
    assert check is not None
    assert check.at <= time.monotonic()
