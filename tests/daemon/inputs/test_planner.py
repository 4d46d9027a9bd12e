"""A plan is made in steps, and holds until the store changes."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from paraglider.config.model import Config, Service
from paraglider.config.steps import completed
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.inputs import planner as module
from paraglider.daemon.inputs.planner import Planner
from paraglider.daemon.inputs.reload import Capabilities, FlowLoss
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.store.store import Store
from paraglider.errors import OperatorError

SERVICES = 500
ABLE = Capabilities({"worker"}, STRATEGIES)


def config(count: int = SERVICES, changed: int = 0, **changes: Any) -> Config:
    """Services with four backends each; the first ``changed`` have a fifth."""
    return Config.model_validate(
        {
            "services": [
                {
                    "name": f"s{number}",
                    "vip": f"192.168.{number >> 8}.{number & 255}",
                    "protocol": "tcp",
                    "ports": 80,
                    "backends": [
                        f"10.{n}.{number >> 8}.{number & 255}"
                        for n in range(5 if number < changed else 4)
                    ],
                    **changes,
                }
                for number in range(count)
            ]
        }
    )


@pytest.fixture
def store() -> Store:
    """A store of many services."""
    return Store(config(), 0.0)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts comparisons of services, and those that are looked at field by field."""
    counter: Counter[str] = Counter()
    equal, dump, compare = Service.__eq__, Service.model_dump, module.compare

    def counted_equal(self: Service, other: object) -> bool:
        counter["compared"] += 1
        return equal(self, other)

    def counted_dump(self: Service, **how: Any) -> dict[str, Any]:
        counter["dumped"] += 1
        return dump(self, **how)

    def counted_compare(*given: Any) -> Any:
        counter["plans"] += 1
        return compare(*given)

    monkeypatch.setattr(Service, "__eq__", counted_equal)
    monkeypatch.setattr(Service, "model_dump", counted_dump)
    monkeypatch.setattr(module, "compare", counted_compare)
    return counter


@pytest.mark.parametrize("changed", [0, 1, SERVICES])
def test_each_service_is_compared_once(store: Store, work: Counter[str], changed: int) -> None:
    """In a step that does nothing else; then what is equal is the same object, and only services
    that differ are looked at. Applying the plan compares nothing.
    """
    planner, wanted = Planner(store), config(changed=changed)
    steps: list[Counter[str]] = []
    planning = planner.planning(wanted, ABLE)
    while True:
        before = work.copy()
        over = next(planning, planning) is planning
        steps.append(work - before)
        if over:
            break
    assert steps == [
        Counter(compared=SERVICES),
        Counter({"plans": 1, "dumped": 2 * changed}) - Counter(),
        Counter(),
    ]
    plan = planner.plan(wanted, ABLE)
    assert work == steps[0] + steps[1]
    assert len(plan.outcome.words) == changed
    same = zip(store.wanted.services, plan.after.wanted.services, strict=True)
    assert sum(old is new for old, new in same) == SERVICES - changed


def test_a_plan_holds_until_the_store_changes(store: Store, work: Counter[str]) -> None:
    """Then another is made, as for another configuration, and after it was forgotten."""
    planner, wanted = Planner(store), config(changed=1)
    completed(planner.planning(wanted, ABLE))
    assert planner.plan(wanted, ABLE) is planner.plan(wanted, ABLE)
    assert work["plans"] == 1
    store.apply(store.desired.replaced(config(SERVICES - 1)), 1.0)
    plan = planner.plan(wanted, ABLE)
    assert (work["plans"], plan.before) == (2, store.desired)
    assert "service s499 added, 4 backends" in plan.outcome.words
    other = config(changed=2)
    assert planner.plan(other, ABLE).config is other
    assert work["plans"] == 3
    planner.forget()
    planner.plan(other, ABLE)
    assert work["plans"] == 4


def test_a_refused_configuration_has_no_plan(store: Store) -> None:
    """It is refused when it is to be applied, not before."""
    planner, wanted = Planner(store), config(affinity="client")
    completed(planner.planning(wanted, ABLE))
    with pytest.raises(OperatorError, match="affinity"):
        planner.plan(wanted, ABLE)


def test_flows_are_counted_first(store: Store) -> None:
    """While no flow was counted there is no plan for a service whose flows would end."""

    def uncounted(_: str) -> int:
        raise HostPendingError

    planner, wanted = Planner(store), config(forward="offload")
    ahead = Capabilities({"worker", "conntrack counter"}, STRATEGIES, FlowLoss(uncounted))
    completed(planner.planning(wanted, ahead))
    with pytest.raises(HostPendingError):
        planner.plan(wanted, ahead)
    counted = Capabilities({"worker", "conntrack counter"}, STRATEGIES, FlowLoss(lambda _: 3))
    assert "ends 3 flows" in planner.plan(wanted, counted).outcome.restart[0]


def test_with_discovered_backends_each_plan_is_new(work: Counter[str]) -> None:
    """They may leave at any time."""
    failover = {"enabled": True, "discover": True}
    given = config(2).model_dump(mode="json", by_alias=True, exclude_unset=True)
    wanted = Config.model_validate({**given, "failover": failover})
    store = Store(wanted, 0.0)
    assert store.discovered.join(ip_address("10.9.0.1"), wanted)
    planner = Planner(store)
    for number in (1, 2):
        planner.plan(wanted, ABLE)
        assert work["plans"] == number
