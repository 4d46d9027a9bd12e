"""Openings without an answer: reported if answers must pass here, until they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.conditions.unanswered import LATELY, LEAST, SILENCE, UnansweredOpenings
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter
from paraglider.daemon.stats.traffic import TrafficCounters
from paraglider.daemon.store.backends import BackendTable
from paraglider.forward.offload.counters import KernelCounters
from paraglider.netfilter.nfnetlink import CounterValue
from paraglider.netfilter.rules.marks import backend_marks

ONE, TWO = "10.0.0.1", "10.0.0.2"
SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}


class World:
    """A service with two backends, the counters of one worker and the kernel, and the monitor."""

    def __init__(self, **changes: Any) -> None:
        service = {**SERVICE, "backends": [ONE, TWO], "check": {"type": "tcp"}, **changes}
        self.config = Config.model_validate({"services": [service]})
        self.pools = BackendTable(self.config, 0.0)
        self.counts = {
            name: {"conns": 7, "packets_back": 9, "unanswered": 0} for name in (ONE, TWO)
        }
        self.replies = dict.fromkeys((ONE, TWO), 9)
        self._counters = Counters()
        self._writer = CounterWriter(self._counters, self)
        self.carried = KernelCounters(self.config, self._carried)
        self.conditions = Conditions()
        self.unanswered = UnansweredOpenings(self.conditions)

    def figures(self) -> Mapping[str, int]:
        """See ``counters.CounterSource``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """See ``counters.CounterSource``."""
        offloaded = self.config.services[0].forward == "offload"
        for name, counts in self.counts.items():
            yield "web", name, {**counts, **({"packets_back": 0} if offloaded else {})}

    def _carried(self, _family: int) -> Mapping[int, Mapping[str, CounterValue]]:
        marks = backend_marks(self.config)["web"]
        return {
            mark: {"replies": CounterValue(self.replies[name], 0)}
            for mark, name in zip(marks, (ONE, TWO), strict=True)
        }

    def opens(self, backend: str, answered: int = 0, again: int = 2) -> None:
        """A flow more to ``backend``, with SYNs that come ``again``, and packets back."""
        self.counts[backend]["conns"] += 1
        self.counts[backend]["unanswered"] += again
        self.counts[backend]["packets_back"] += answered
        self.replies[backend] += answered

    def update(self, now: float, *, read: bool = True) -> list[str]:
        """The conditions at ``now``; ``read`` means that the kernel's counters are new."""
        self._writer.tick()
        if read:
            self.carried.update(now)
        found = TrafficCounters({0: self._counters.read()}, self.carried)
        self.unanswered.update(self.config, self.pools, found, now, self.carried.read_at)
        return [standing.line for standing in self.conditions]


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_many_in_and_none_out(forward: str) -> None:
    """Degraded, with the number, the backend and possible causes; answers
    counted anywhere end it.
    """
    world = World(forward=forward)
    assert world.update(1.0) == []
    for _ in range(LEAST):
        world.opens(ONE, again=1)
        world.opens(TWO, answered=2)
    (line,) = world.update(1.0 + SILENCE)
    assert line == (
        f"service web: {LEAST} openings went to {ONE}, no answer passed here; is a filter dropping"
        " forwarded packets, or is this host not the backend's gateway?"
    )
    assert world.conditions.status == "degraded"
    world.opens(ONE, answered=1, again=0)
    assert world.update(2.0 + SILENCE) == []


def test_what_the_kernel_was_not_asked_is_not_known() -> None:
    """With many backends the kernel's counters are read rarely; until the next reading nothing is
    reported.
    """
    world = World(forward="offload")
    world.update(1.0)
    world.opens(ONE, answered=5, again=9)
    assert world.update(9.0, read=False) == []
    assert world.update(10.0) == []
    world.opens(ONE, again=9)
    assert world.update(19.0, read=False) == []
    assert len(world.update(20.0)) == 1


def test_both_in_one_line() -> None:
    """A service has one line, however many backends are silent."""
    world = World()
    world.update(1.0)
    for name in (ONE, TWO, ONE, TWO):
        world.opens(name)
    (line,) = world.update(10.0)
    assert f"8 openings went to {ONE}, {TWO}, no answer" in line


def test_what_is_no_sign_yet() -> None:
    """Too few repeated openings, too short a silence, or openings that were not repeated."""
    world = World()
    world.update(1.0)
    world.opens(ONE, again=LEAST - 1)
    for _ in range(50):
        world.opens(TWO, again=0)
    assert world.update(30.0) == []
    world.opens(TWO, answered=1, again=LEAST)
    assert world.update(31.0) == []
    world.opens(TWO, again=LEAST)
    assert world.update(31.0 + SILENCE / 2) == []
    assert len(world.update(31.0 + SILENCE)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"forward": "dsr", "ports": 80},
        {"forward": "nat", "return": "direct"},
        {"protocol": "udp", "check": {"type": "icmp"}},
        {"forward": "proxy"},
    ],
    ids=["dsr", "direct", "udp", "proxy"],
)
def test_where_no_answer_passes_by_design(changes: dict[str, Any]) -> None:
    """No condition."""
    world = World(**changes)
    world.update(1.0)
    for _ in range(50):
        world.opens(ONE)
    assert world.update(60.0) == []


def test_a_backend_that_is_down_is_not_reported() -> None:
    """Health has given it up: that it is silent is no news."""
    world = World()
    world.update(1.0)
    world.opens(ONE, again=9)
    member = world.pools.find("web", ONE)
    world.pools.apply(member, Event.CHECK_FAILED, "no answer", 2.0)
    assert world.update(9.0) == []


def test_a_backend_without_a_check() -> None:
    """It may be down: the condition names that first."""
    world = World(check=None)
    world.update(1.0)
    world.opens(ONE, again=9)
    (line,) = world.update(9.0)
    assert "is the backend up? If so, is a filter dropping" in line


def test_a_backend_without_openings() -> None:
    """After a while without an opening nothing is known."""
    world = World()
    world.update(1.0)
    world.opens(ONE, again=9)
    assert len(world.update(9.0)) == 1
    assert len(world.update(8.0 + LATELY)) == 1
    assert world.update(9.0 + LATELY) == []


def test_a_thousand_backends_are_read_less_often() -> None:
    """The supervisor has other work."""
    world = World(backends=[f"10.0.{n // 250}.{n % 250 + 1}" for n in range(1000)])
    found = TrafficCounters({}, None)
    world.unanswered.update(world.config, world.pools, found, 5.0, 5.0)
    assert world.unanswered.wait(5.0) == pytest.approx(11.0)
    assert world.unanswered.wait(16.0) == 0.0
