"""Results of checks as an input, with a fake controller."""

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
from paraglider.daemon.store.backends import SETTABLE, AgentFact
from paraglider.daemon.store.store import Store
from paraglider.errors import PlatformError
from paraglider.health.codes import Code
from paraglider.health.results import AgentReport, CheckReport, DiscoveredHost, HealthChange
from paraglider.health.targets import Target

FIRST, NEW = "10.0.0.1", "10.0.0.77"
CHECK = {"check": {"type": "tcp"}}


class Controller:
    """Two services; records configurations and moves."""

    def __init__(self, *, failover: bool = True, **changes: Any) -> None:
        common = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": [FIRST, "10.0.0.2"]}
        services = [
            {"name": "web", "ports": 80, **common, **changes},
            {"name": "mail", "ports": 25, **common},
        ]
        document = {"failover": {"enabled": failover}, "services": services}
        self.store = Store(Config.model_validate(document), 0.0)
        self.health = HealthInput(self.store, self.apply_config)
        self.refuses = self.adjusting = False
        self.applied = 0
        self.now = 0.0

    def apply_config(self, config: Config, requested_by: str, _again: object) -> None:
        """See ``Controller``."""
        if self.adjusting:
            raise HostPendingError
        if self.refuses:
            raise PlatformError("the kernel refuses")
        assert requested_by == "failover"
        self.applied += 1
        wanted = self.store.discovered.into(config)
        self.store.apply(self.store.desired.replaced(wanted), 1.0)
        self.store.discovered.note_applied(config, wanted)

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
        """Apply the discovered hosts."""
        self.now += SETTLED
        self.health.apply_discovered(self.now)

    def states(self, service: str = "web") -> dict[str, str]:
        """The backends of a service."""
        return {m.backend: m.state.value for m in self.store.pools.of(service)}

    def targets(self) -> list[Target]:
        """The targets for the checker."""
        return list(self.order().targets())

    def order(self) -> SetTargets:
        """The first message to a checker."""
        sent: list[Message] = []
        child = Child(MonitorSpec(1, None, 1, 1, "/"), pid=1, starts=1)
        checks = CheckReconciler(self.store, lambda: child, lambda _, message: sent.append(message))
        checks.reconcile(0.0)
        (message,) = sent
        assert isinstance(message, SetTargets)
        return message


def test_which_backends_are_checked() -> None:
    """With failover all backends, without it those of checked services; none in maintenance."""
    assert len(Controller().targets()) == 4
    controller = Controller(failover=False, **CHECK)
    assert [t.key for t in controller.targets()] == [("web", FIRST), ("web", "10.0.0.2")]
    record = controller.store.pools.find("web", FIRST)
    controller.store.move(record, SETTABLE["maint"], "by hand", 1.0)
    assert [t.key for t in controller.targets()] == [("web", "10.0.0.2")]
    assert controller.order().scope is None


def test_a_verdict_moves_and_a_report_is_kept() -> None:
    """For the named backend; for an unknown one nothing happens."""
    controller = Controller(**CHECK)
    for backend in (FIRST, "10.9.9.9"):
        report = CheckReport("web", backend, False, Code.L4CON, "refused", 0.1, 5.0)
        change = HealthChange("web", backend, Event.CHECK_FAILED, "refused", 5.0)
        controller.health.handle(HealthNews(reports=(report,), changes=(change,)))
    member = controller.store.pools.find("web", FIRST)
    assert (member.state, member.why) == (State.DOWN, "refused")
    assert member.check is not None
    assert not member.check.passed
    assert [t.up for t in controller.targets()] == [False, True, True, True]


def test_what_an_agent_says() -> None:
    """It sets weight and state of a backend whose service has an agent, and of no other."""
    controller = Controller(agent={"port": 9999})
    for service in ("web", "mail"):
        report = AgentReport(service, FIRST, True, Code.L7OK, "300% drain", 300, "drain", 5.0)
        controller.health.handle(HealthNews(agents=(report,)))
    member, other = (controller.store.pools.find(name, FIRST) for name in ("web", "mail"))
    assert (member.state, member.weight, member.why) == (State.DRAIN, 3, "agent: 300% drain")
    assert member.agent == AgentFact(300, "drain", True, Code.L7OK, "300% drain", 5.0)
    assert (other.state, other.weight, other.agent) == (State.READY, 1, None)


def test_a_host_joins_leaves_and_is_back() -> None:
    """It is a backend of every service, marked as discovered; after it left it is no target, and
    its flows are lost; it can join again.
    """
    controller = Controller()
    for _ in range(2):
        controller.find(joined=True)
        for service in ("web", "mail"):
            assert controller.states(service)[NEW] == "ready"
            assert controller.store.pools.find(service, NEW).weight == 1
        assert controller.store.pools.find("web", NEW).why == "answers"
        assert [t.key for t in controller.targets() if t.found] == [("web", NEW), ("mail", NEW)]
        controller.find(joined=False)
        assert controller.states()[NEW] == "drain-down"
        assert controller.store.pools.find("web", NEW).weight == 0
        assert len(controller.targets()) == 4
    assert NEW not in [str(b.address) for b in controller.store.wanted.services[0].backends]


def test_news_of_hosts_that_change_nothing() -> None:
    """A host that has joined already, one that never joined, one that is listed."""
    controller = Controller()
    controller.find(joined=False)
    controller.find(joined=False, address=FIRST)
    controller.find(joined=True, address="192.168.0.11")
    assert controller.states() == {FIRST: "ready", "10.0.0.2": "ready"}
    controller.find(joined=True)
    before = controller.store.wanted
    controller.find(joined=True)
    assert controller.store.wanted is before


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
    """All hosts of a sweep are one change; without any there is none."""
    controller = Controller()
    controller.settle()
    assert controller.applied == 0
    hosts = [f"10.0.1.{n}" for n in range(1, 100)]
    for host in hosts:
        controller.hear(joined=True, address=host)
    controller.hear(joined=False, address=hosts[0])
    controller.settle()
    assert controller.applied == 1
    assert set(controller.states()) == {FIRST, "10.0.0.2", *hosts[1:]}
    assert set(controller.states().values()) == {"ready"}


def test_failover_is_part_of_the_order() -> None:
    """The monitor gets the scope."""
    scope = Controller(**CHECK).order().scope
    assert scope is not None
    assert scope.failover.discover


def test_a_checker_that_lies_changes_its_own_subject_alone() -> None:
    """Only checked services, hosts only with failover, and at a limited rate."""
    controller = Controller(failover=False, check={"type": "tcp"})
    change = HealthChange("mail", FIRST, Event.CHECK_FAILED, "x", 1.0)
    controller.health.handle(HealthNews(changes=(change,)))
    controller.find(joined=True)
    assert set(controller.states().values()) | set(controller.states("mail").values()) == {"ready"}
    assert controller.applied == 0
    controller = Controller()
    for _ in range(1000):
        controller.hear(joined=True)
        controller.health.apply_discovered(1.0)
        controller.hear(joined=False)
        controller.health.apply_discovered(1.0)
    assert controller.applied == 1


def test_a_check_of_tomorrow_is_of_now() -> None:
    """If the checker's clock is wrong, the shown time is now."""
    controller = Controller(check={"type": "tcp"})
    report = CheckReport("web", FIRST, True, Code.L4OK, "ok", 0.1, 9e9)
    controller.health.handle(HealthNews(reports=(report,)))
    check = controller.store.pools.find("web", FIRST).check
    assert check is not None
    assert check.at <= time.monotonic()
