"""When the reconciler looks, what it tells and when it tries again; time is an argument."""

from __future__ import annotations

import math
from typing import Any

import pytest

from paraglider.daemon.host_helper import service as module
from paraglider.daemon.host_helper.service import (
    AT_WORK,
    LINES,
    LONGEST_PAUSE,
    PERIOD,
    SETTLE,
    HostService,
)
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, HostConditions, Message, TablesRestored
from paraglider.errors import OperatorError, PlatformError
from paraglider.host.reconcile import Absence, RepairResult, SetUpAtWorkError
from paraglider.host.step import Step

STEP = Step("apply", None)  # type: ignore[arg-type]


class Place:
    """A host on which things are missing, a clock, and the service that looks."""

    def __init__(self, needed: tuple[int, ...] = (4,)) -> None:
        self.now = 1000.0
        self.takes = 0.0
        self.missing: dict[str, list[Absence]] = {"links": [], "filter": [], "foreign": []}
        self.stubborn: dict[str, str] = {}
        self.error: Exception | None = None
        self.set_up = frozenset({4, 6})
        self.looks: list[str] = []
        self.tried: list[str] = []
        self.conditions: list[dict[str, tuple[str, str]]] = [{}]
        self.renewed: list[tuple[int, ...]] = []
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.service = HostService(self, self.hear, self, needed, lambda: self.now)

    def look(self, part: Any, choose: Any = tuple) -> RepairResult:
        """See ``Reconciler``."""
        self.looks.append(part)
        self.now += self.takes if part == "filter" else 0.0
        if self.error is not None:
            raise self.error
        absent = tuple(self.missing[part])
        chosen = [a for a in (choose(absent) if absent else ()) if a.step is not None]
        self.tried += [a.name for a in chosen]
        failed = {a.name: self.stubborn[a.name] for a in chosen if a.name in self.stubborn}
        back = tuple(a for a in chosen if a.name not in failed)
        self.missing[part] = [a for a in absent if a not in back]
        return RepairResult(
            absent, back, failed, (4,) if any("table" in a.name for a in back) else ()
        )

    def families(self) -> frozenset[int]:
        """See ``Reconciler``."""
        return self.set_up

    def hear(self, message: Message) -> None:
        """The supervisor."""
        received = FROM_ROLE["host helper"].validate_json(encode(message))
        if isinstance(received, TablesRestored):
            self.renewed.append(received.families)
        else:
            assert isinstance(received, HostConditions)
            self.conditions.append(dict(received.found))

    def info(self, event: str, **details: Any) -> None:
        """The log."""
        self.log.append((event, details))

    warning = info

    def run(self, seconds: float) -> None:
        """Time passes, and all is done that is due."""
        end = self.now + seconds
        while self.now + self.service.wait() <= end:
            self.now += self.service.wait()
            self.service.work()
        self.now = max(self.now, end)


def absence(name: str, **changes: Any) -> Absence:
    """Something that is missing."""
    return Absence(name, **{"vital": True, "step": STEP, **changes})


@pytest.fixture
def it() -> Place:
    """A host of which nothing is missing, after the first looks."""
    place = Place()
    place.run(0.0)
    assert sorted(place.looks) == ["filter", "foreign", "links"]
    place.looks.clear()
    return place


def test_it_looks_by_the_clock(it: Place) -> None:
    """Links often, since not everything has events; the filter seldom. No message is sent."""
    it.run(60.5)
    assert it.looks.count("links") == math.floor(60.5 / PERIOD["links"])
    assert it.looks.count("filter") == 1
    assert it.conditions == [{}]


def test_news_are_looked_at_after_a_moment(it: Place) -> None:
    """All that come within it are one look."""
    for _ in range(5):
        it.service.news(["filter"])
        it.now += SETTLE / 10
    it.run(SETTLE)
    assert it.looks == ["filter"]


def test_what_is_missing_is_told_of_and_then_put_back(it: Place) -> None:
    """`health` has it meanwhile, the log has the object, and then it is over."""
    it.missing["filter"] = [absence("table ip paraglider"), absence("leases", vital=False)]
    it.service.news(["filter"])
    it.run(SETTLE)
    assert it.conditions[1:] == [
        {
            "table ip paraglider": ("unhealthy", "missing; it is being restored"),
            "leases": ("degraded", "missing; it is being restored"),
        },
        {},
    ]
    assert it.renewed == [(4,)]
    assert [details["object"] for _, details in it.log] == ["table ip paraglider", "leases"]


def test_what_cannot_be_put_back(it: Place) -> None:
    """Stays, with the reason, and is tried again after pauses that grow, others in between."""
    it.stubborn["address"] = "Read-only file system; remount it"
    it.missing["links"] = [absence("address"), absence("route")]
    it.run(1.0)
    text = "missing, cannot be restored: Read-only file system; remount it"
    assert it.conditions[-1] == {"address": ("unhealthy", text)}
    it.run(600.0)
    tries = it.tried.count("address")
    assert 600 / LONGEST_PAUSE <= tries <= 600 / LONGEST_PAUSE + 8
    assert it.tried.count("route") == 1
    assert len(it.conditions) == 3
    it.stubborn.clear()
    it.run(LONGEST_PAUSE + 1)
    assert it.conditions[-1] == {}
    it.stubborn["address"] = "no"
    it.missing["links"] = [absence("address")]
    before = it.tried.count("address")
    it.run(3.5)
    assert it.tried.count("address") - before >= 2, "a new failure is tried again soon"


def test_an_interface_that_is_down(it: Place) -> None:
    """There is nothing to try; it is told of as it is, and when it is over."""
    it.missing["links"] = [absence("interface eth0", step=None, remedy="it is down")]
    it.run(5.0)
    assert it.conditions[1:] == [{"interface eth0": ("unhealthy", "it is down")}]
    it.missing["links"] = []
    it.run(1.5)
    assert it.conditions[-1] == {}


def test_what_is_new_is_nothing_wrong(it: Place) -> None:
    """An interface that came gets its sysctls, and the log says so; unless that fails."""
    it.missing["links"] = [absence("sysctl veth7", new=True)]
    it.run(1.5)
    assert it.conditions == [{}]
    assert it.log == [("host changed", {"what": "sysctl veth7"})]
    it.stubborn["sysctl veth8"] = "no"
    it.missing["links"] = [absence("sysctl veth8", new=True, vital=False)]
    it.run(1.5)
    assert it.conditions[-1]["sysctl veth8"][0] == "degraded"


def test_very_much_at_once(it: Place) -> None:
    """The log is bounded."""
    it.missing["links"] = [absence(f"address {i}") for i in range(500)]
    it.run(1.5)
    assert len(it.log) == LINES + 1
    assert it.log[-1][1] == {"objects": 500 - LINES}


def test_while_a_set_up_is_at_work(it: Place) -> None:
    """It looks again soon, and says nothing."""
    it.error = SetUpAtWorkError("another set-up is at work")
    it.service.news(["filter"])
    it.run(1.0)
    assert it.looks.count("filter") >= math.floor((1.0 - SETTLE) / AT_WORK)
    it.error = None
    it.missing["filter"] = [absence("rules")]
    it.run(AT_WORK)
    assert it.tried == ["rules"]


@pytest.mark.parametrize("error", [PlatformError("nft did not end"), OSError(24, "too many files")])
def test_a_host_that_cannot_be_looked_at(it: Place, error: Exception) -> None:
    """Is told of once, tried again ever more seldom, and is over when it can be."""
    it.error = error
    it.service.news(["filter"])
    it.run(SETTLE)
    ((name, (severity, text)),) = it.conditions[-1].items()
    assert (name, severity) == ("host: filter", "degraded")
    assert str(error) in text
    it.error = None
    it.run(LONGEST_PAUSE)
    assert it.conditions[-1] == {}


def test_slow_programs_are_not_asked_all_the_time(it: Place) -> None:
    """However many news there are, at most a third of the time is spent on looks."""
    it.takes = 10.0
    begun = it.now
    for _ in range(600):
        it.service.news(["filter"])
        it.run(1.0)
    looks = it.looks.count("filter")
    assert looks > 10
    assert looks * it.takes <= 0.35 * (it.now - begun) + it.takes


def test_a_host_that_is_not_set_up(it: Place) -> None:
    """Where the daemon needs it, it is told of with the remedy."""
    it.set_up = frozenset()
    it.run(1.5)
    ((name, (severity, text)),) = it.conditions[-1].items()
    assert (name, severity) == ("set-up of IPv4", "unhealthy")
    assert "run paraglider.config" in text
    it.service.need([])
    it.run(1.5)
    assert it.conditions[-1] == {}


def test_the_quick_part_first(it: Place) -> None:
    """Where both are due."""
    it.service.news(module.PARTS)
    it.run(SETTLE)
    assert it.looks == ["links", "filter", "foreign"]


def test_an_operators_mistake_has_its_own_remedy(it: Place) -> None:
    """It is said as it is."""
    it.error = OperatorError("the program nft is missing", "install it")
    it.service.news(["filter"])
    it.run(SETTLE)
    assert it.conditions[-1]["host: filter"][1].endswith("the program nft is missing; install it")
