"""The monitor's targets: all when it starts, then what changed, and never its own results."""

from __future__ import annotations

from typing import Any

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.messages import SetTargets
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.checks import CheckReconciler
from paraglider.daemon.store.backends import Origin
from paraglider.daemon.store.store import Store

ONE, TWO = "10.0.0.1", "10.0.0.2"


def config(*services: dict[str, Any], failover: bool = False) -> Config:
    """These services, each with two backends."""
    base = {"protocol": "tcp", "backends": [ONE, TWO]}
    every = [
        {"name": f"s{n}", "vip": f"192.0.2.{1 + n}/24", "ports": 80 + n, **base, **service}
        for n, service in enumerate(services)
    ]
    return Config.model_validate({"failover": {"enabled": failover}, "services": every})


CHECK = {"check": {"type": "tcp"}}


class World:
    """A store, a running monitor, and the messages to it."""

    def __init__(self, first: Config) -> None:
        self.store = Store(first, 1.0)
        self.monitor = Child(MonitorSpec(1, None, 1, 1, "/"), pid=1, starts=1)
        self.sent: list[SetTargets] = []
        self.checks = CheckReconciler(self.store, lambda: self.monitor, self._send)

    def _send(self, _index: int, message: Any) -> None:
        self.sent.append(message)

    def turn(self) -> SetTargets | None:
        """One turn; returns its messages."""
        self.sent.clear()
        self.checks.reconcile(1.0)
        assert len(self.sent) <= 1
        return self.sent[0] if self.sent else None

    def move(self, backend: str, event: Event) -> None:
        """The state of a backend changes."""
        self.store.move(self.store.pools.find("s0", backend), event, "a test", 2.0)


def test_all_targets_at_the_start_of_the_monitor() -> None:
    """Also for a restarted one, with the current states."""
    world = World(config(CHECK, {}))
    message = world.turn()
    assert message is not None
    assert message.whole
    assert [target.key for target in message.targets()] == [("s0", ONE), ("s0", TWO)]
    assert world.turn() is None
    world.move(ONE, Event.CHECK_FAILED)
    world.monitor.starts = 2
    message = world.turn()
    assert message is not None
    assert [target.up for target in message.targets()] == [False, True]


def test_results_and_weights_are_not_sent_back() -> None:
    """They change the store, and no target."""
    world = World(config(CHECK))
    world.turn()
    world.move(ONE, Event.CHECK_FAILED)
    world.store.set_weight(world.store.pools.find("s0", TWO), 7)
    assert world.turn() is None
    world.move(ONE, Event.CHECK_PASSED)
    assert world.turn() is None


def test_maintenance_is_sent_as_a_difference() -> None:
    """Only the backend, removed and added."""
    world = World(config(CHECK))
    world.turn()
    world.move(TWO, Event.SET_MAINT)
    message = world.turn()
    assert message is not None
    assert (message.whole, message.targets(), message.gone) == (False, (), (("s0", TWO),))
    world.move(TWO, Event.SET_READY)
    message = world.turn()
    assert message is not None
    assert [target.key for target in message.targets()] == [("s0", TWO)]
    assert not message.whole


def test_the_agent_of_a_backend_in_maintenance() -> None:
    """It is asked on where it set that itself, and not where an operator did: it alone can end the
    one, and must not end the other.
    """
    world = World(config({"agent": {"port": 9999}, **CHECK}))
    world.turn()
    world.store.move(world.store.pools.find("s0", ONE), Event.SET_MAINT, "so", 2.0, Origin.AGENT)
    world.move(TWO, Event.SET_MAINT)
    message = world.turn()
    assert message is not None
    assert message.gone == (("s0", TWO),)
    (target,) = message.targets()
    assert (target.backend, target.check) == (ONE, None)
    assert target.agent is not None


def test_another_configuration_is_sent_as_a_difference() -> None:
    """A service that is checked from now on, and one that is no longer."""
    world = World(config(CHECK, {}))
    world.turn()
    world.store.apply(world.store.desired.replaced(config({}, CHECK)), 3.0)
    message = world.turn()
    assert message is not None
    assert {target.service for target in message.targets()} == {"s1"}
    assert set(message.gone) == {("s0", ONE), ("s0", TWO)}
    world.store.apply(world.store.desired.replaced(config({}, CHECK, failover=True)), 4.0)
    message = world.turn()
    assert message is not None
    assert (message.whole, len(message.targets())) == (True, 4)
