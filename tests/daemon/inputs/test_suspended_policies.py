"""Policies that do not return: suspended, named, and enabled again on request."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from paraglider.config.model import Config
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.inputs.suspended_policies import SuspendedPolicies
from paraglider.daemon.messages import Message, SuspendPolicies
from paraglider.daemon.shared_memory.counters import identity
from paraglider.daemon.shared_memory.heartbeat import Heartbeat

COMMON = {"protocol": "tcp", "backends": ["10.0.0.1"]}
CONFIG = Config.model_validate(
    {
        "services": [
            {"name": "own", "vip": "192.0.2.1/24", "ports": 80, "strategy": "mine:Own", **COMMON},
            {"name": "web", "vip": "192.0.2.2/24", "ports": 80, **COMMON},
        ]
    }
)


class World:
    """A process with flows, and the messages to it."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat()
        self.conditions = Conditions()
        self.told: list[Message] = []
        self.suspensions = SuspendedPolicies(STRATEGIES, self.conditions, self.told.append)

    def hangs(self, service: str) -> tuple[dict[str, str], list[str]]:
        """The process hangs during the policy of ``service``: the result and the log lines."""
        self.heartbeat.deciding[0] = identity(service)
        with capture_logs() as logged:
            found = dict(self.suspensions.hangs(CONFIG, self.heartbeat))
        return found, [line["event"] for line in logged]


@pytest.fixture
def world() -> World:
    """No process hangs."""
    return World()


def test_a_policy_that_does_not_return(world: World) -> None:
    """One log line with its name, a message to all processes, and a condition with the remedy."""
    said = {"deciding": "own", "strategy": "mine:Own"}
    event = "policy does not return, suspended: rr is used until a reload"
    assert world.hangs("own") == (said, [event])
    assert world.hangs("own") == (said, [])
    assert world.told == [SuspendPolicies(services=("own",))]
    (line,) = [standing.line for standing in world.conditions]
    assert line.startswith("service own: its policy `mine:Own` did not return, rr picks")
    assert world.conditions.status == "degraded"


def test_it_is_tried_again(world: World) -> None:
    """On request; without suspended policies no message is sent."""
    assert not world.suspensions.clear()
    assert world.told == []
    world.hangs("own")
    assert world.suspensions.clear()
    assert world.told[1:] == [SuspendPolicies(services=())]
    assert world.conditions.status == "healthy"
    assert world.hangs("own")[1] != []


@pytest.mark.parametrize("service", ["web", "nobody"])
def test_nothing_else_is_suspended(world: World, service: str) -> None:
    """A strategy of ours, or a number that a process has made up."""
    assert world.hangs(service) == ({}, [])
    assert world.told == []
    assert world.conditions.status == "healthy"


def test_long_work_is_named(world: World) -> None:
    """The process does not hang in a policy."""
    with world.heartbeat.long_work():
        assert world.hangs("nobody") == ({"doing": "takes long"}, [])
