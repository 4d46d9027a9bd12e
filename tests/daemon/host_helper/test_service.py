"""When the reconciler runs, what is reported and when it tries again; time is an argument."""

from __future__ import annotations

import math
from typing import Any

import pytest

from paraglider.daemon.host_helper import service as module
from paraglider.daemon.host_helper.service import (
    LINES,
    LONGEST_PAUSE,
    PERIOD,
    RETRY,
    SETTLE,
    HostService,
)
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, HostConditions, Message, TablesRestored
from paraglider.errors import OperatorError, PlatformError
from paraglider.host.reconcile import MissingObject, RepairResult, SetupRunningError
from paraglider.host.step import Step

STEP = Step("apply", None)  # type: ignore[arg-type]


class Place:
    """A host with missing objects, a clock, and the service under test."""

    def __init__(self, needed: tuple[int, ...] = (4,)) -> None:
        self.now = 1000.0
        self.takes = 0.0
        self.missing: dict[str, list[MissingObject]] = {"links": [], "filter": [], "foreign": []}
        self.stubborn: dict[str, str] = {}
        self.error: Exception | None = None
        self.set_up = frozenset({4, 6})
        self.runs: list[str] = []
        self.tried: list[str] = []
        self.conditions: list[dict[str, tuple[str, str]]] = [{}]
        self.recreated: list[tuple[int, ...]] = []
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.service = HostService(self, self.hear, self, needed, lambda: self.now)

    def reconcile(self, part: Any, choose: Any = tuple) -> RepairResult:
        """See ``Reconciler``."""
        self.runs.append(part)
        self.now += self.takes if part == "filter" else 0.0
        if self.error is not None:
            raise self.error
        missing = tuple(self.missing[part])
        chosen = [a for a in (choose(missing) if missing else ()) if a.step is not None]
        self.tried += [a.name for a in chosen]
        failed = {a.name: self.stubborn[a.name] for a in chosen if a.name in self.stubborn}
        back = tuple(a for a in chosen if a.name not in failed)
        self.missing[part] = [a for a in missing if a not in back]
        return RepairResult(
            missing, back, failed, (4,) if any("table" in a.name for a in back) else ()
        )

    def families(self) -> frozenset[int]:
        """See ``Reconciler``."""
        return self.set_up

    def hear(self, message: Message) -> None:
        """The supervisor."""
        received = FROM_ROLE["host helper"].validate_json(encode(message))
        if isinstance(received, TablesRestored):
            self.recreated.append(received.families)
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
            self.service.reconcile_due()
        self.now = max(self.now, end)


def item(name: str, **changes: Any) -> MissingObject:
    """Something that is missing."""
    return MissingObject(name, **{"vital": True, "step": STEP, **changes})


@pytest.fixture
def it() -> Place:
    """A host without missing objects, after the first run of every part."""
    place = Place()
    place.run(0.0)
    assert sorted(place.runs) == ["filter", "foreign", "links"]
    place.runs.clear()
    return place


def test_periodic_runs(it: Place) -> None:
    """Links run every second, the filter once a minute. No message is sent."""
    it.run(60.5)
    assert it.runs.count("links") == math.floor(60.5 / PERIOD["links"])
    assert it.runs.count("filter") == 1
    assert it.conditions == [{}]


def test_events_within_the_settling_time_are_one_run(it: Place) -> None:
    """Five events within SETTLE seconds cause one run."""
    for _ in range(5):
        it.service.mark_changed(["filter"])
        it.now += SETTLE / 10
    it.run(SETTLE)
    assert it.runs == ["filter"]


def test_a_missing_object_is_reported_and_then_restored(it: Place) -> None:
    """`health` has the condition until the object is restored; the log names the object."""
    it.missing["filter"] = [item("table ip paraglider"), item("leases", vital=False)]
    it.service.mark_changed(["filter"])
    it.run(SETTLE)
    assert it.conditions[1:] == [
        {
            "table ip paraglider": ("unhealthy", "missing; it is being restored"),
            "leases": ("degraded", "missing; it is being restored"),
        },
        {},
    ]
    assert it.recreated == [(4,)]
    assert [details["object"] for _, details in it.log] == ["table ip paraglider", "leases"]


def test_an_object_that_cannot_be_restored(it: Place) -> None:
    """Its condition stays, with the reason, and it is tried again after growing pauses; other
    objects are restored meanwhile.
    """
    it.stubborn["address"] = "Read-only file system; remount it"
    it.missing["links"] = [item("address"), item("route")]
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
    it.missing["links"] = [item("address")]
    before = it.tried.count("address")
    it.run(3.5)
    assert it.tried.count("address") - before >= 2, "a new failure is tried again soon"


def test_an_interface_that_is_down(it: Place) -> None:
    """Nothing is tried; the condition is reported, and ends when the interface is up."""
    it.missing["links"] = [item("interface eth0", step=None, remedy="it is down")]
    it.run(5.0)
    assert it.conditions[1:] == [{"interface eth0": ("unhealthy", "it is down")}]
    it.missing["links"] = []
    it.run(1.5)
    assert it.conditions[-1] == {}


def test_a_new_object_is_no_condition(it: Place) -> None:
    """A new interface gets its sysctls, and the log says so; a failure is a condition."""
    it.missing["links"] = [item("sysctl veth7", new=True)]
    it.run(1.5)
    assert it.conditions == [{}]
    assert it.log == [("host changed", {"what": "sysctl veth7"})]
    it.stubborn["sysctl veth8"] = "no"
    it.missing["links"] = [item("sysctl veth8", new=True, vital=False)]
    it.run(1.5)
    assert it.conditions[-1]["sysctl veth8"][0] == "degraded"


def test_lines_of_the_log_are_bounded(it: Place) -> None:
    """500 restored objects write LINES lines and one with the number of the others."""
    it.missing["links"] = [item(f"address {i}") for i in range(500)]
    it.run(1.5)
    assert len(it.log) == LINES + 1
    assert it.log[-1][1] == {"objects": 500 - LINES}


def test_while_a_set_up_is_running(it: Place) -> None:
    """The part runs again after RETRY seconds, and nothing is reported."""
    it.error = SetupRunningError("another set-up is at work")
    it.service.mark_changed(["filter"])
    it.run(1.0)
    assert it.runs.count("filter") >= math.floor((1.0 - SETTLE) / RETRY)
    it.error = None
    it.missing["filter"] = [item("rules")]
    it.run(RETRY)
    assert it.tried == ["rules"]


@pytest.mark.parametrize("error", [PlatformError("nft did not end"), OSError(24, "too many files")])
def test_a_host_that_cannot_be_read(it: Place, error: Exception) -> None:
    """The condition is reported once, retried after growing pauses, and ends when it succeeds."""
    it.error = error
    it.service.mark_changed(["filter"])
    it.run(SETTLE)
    ((name, (severity, text)),) = it.conditions[-1].items()
    assert (name, severity) == ("host: filter", "degraded")
    assert str(error) in text
    it.error = None
    it.run(LONGEST_PAUSE)
    assert it.conditions[-1] == {}


def test_slow_programs_do_not_run_all_the_time(it: Place) -> None:
    """However many events there are, at most a third of the time is spent on runs."""
    it.takes = 10.0
    begun = it.now
    for _ in range(600):
        it.service.mark_changed(["filter"])
        it.run(1.0)
    runs = it.runs.count("filter")
    assert runs > 10
    assert runs * it.takes <= 0.35 * (it.now - begun) + it.takes


def test_a_host_that_is_not_set_up(it: Place) -> None:
    """The condition names the remedy while the daemon needs the set-up."""
    it.set_up = frozenset()
    it.run(1.5)
    ((name, (severity, text)),) = it.conditions[-1].items()
    assert (name, severity) == ("set-up of IPv4", "unhealthy")
    assert "run paraglider.config" in text
    it.service.set_families([])
    it.run(1.5)
    assert it.conditions[-1] == {}


def test_the_quick_part_first(it: Place) -> None:
    """When several parts are due, links run first."""
    it.service.mark_changed(module.PARTS)
    it.run(SETTLE)
    assert it.runs == ["links", "filter", "foreign"]


def test_an_operators_mistake_has_its_own_remedy(it: Place) -> None:
    """The condition has the error's own remedy."""
    it.error = OperatorError("the program nft is missing", "install it")
    it.service.mark_changed(["filter"])
    it.run(SETTLE)
    assert it.conditions[-1]["host: filter"][1].endswith("the program nft is missing; install it")
