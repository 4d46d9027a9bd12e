"""What the hub has the reconciler do: asked once, gone on with when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.host_helper.messages import HostConditions, Renewed, refusal
from paraglider.daemon.processes.broadcast import Done
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.errors import OperatorError, PlatformError


def config(backend: str) -> Config:
    """A configuration of one service."""
    service = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": [backend]}
    return Config.model_validate({"services": [service]})


A, B = config("10.0.0.1"), config("10.0.0.2")


class Asking:
    """A reconciler that is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], Done]] = []
        self.there = True
        self.orders = HostRequests(self, lambda: 5 if self.there else None)

    def ask(self, whom: Iterable[int], message: dict[str, Any], until: float, done: Done) -> None:
        """See ``Broadcasts``."""
        assert list(whom) == [5]
        self.asked.append((message, done))

    def answer(self, **answer: Any) -> None:
        """The first that is open is answered."""
        _, done = self.asked.pop(0)
        done({5: answer})

    def die(self) -> None:
        """No answer comes any more."""
        _, done = self.asked.pop(0)
        done({})


@pytest.fixture
def it() -> Asking:
    """Orders of which none is given."""
    return Asking()


def test_the_host_is_changed_and_then_it_goes_on(it: Asking) -> None:
    """Who asked is called again, and then has what was done; again it would be another change."""
    said: list[Any] = []

    def again() -> None:
        said.append(it.orders.adjust(A, again))

    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)
    assert it.orders.adjusting
    ((message, _),) = it.asked
    assert message["do"] == "adjust"
    assert Config.model_validate(message["config"]) == A
    it.answer(done=["rules"])
    assert said == [["rules"]]
    assert not it.orders.adjusting
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)


def test_another_waits(it: Asking) -> None:
    """Nothing is asked for it meanwhile, and what was done for the one is not the other's."""
    waiting: list[Callable[[], object]] = []
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, lambda: waiting.append(lambda: None))
    with pytest.raises(HostPendingError):
        it.orders.adjust(B, lambda: None)
    assert len(it.asked) == 1
    it.answer(done=["a"])
    assert len(waiting) == 1
    with pytest.raises(HostPendingError):
        it.orders.adjust(B, lambda: None)
    assert Config.model_validate(it.asked[0][0]["config"]) == B


@pytest.mark.parametrize("error", [OperatorError("no", "do so"), PlatformError("the step failed")])
def test_a_refusal(it: Asking, error: Any) -> None:
    """Is the asker's, once, as it was said; the next try asks anew."""
    caught: list[Any] = []

    def again() -> None:
        with pytest.raises(type(error)) as raised:
            it.orders.adjust(A, again)
        caught.append((raised.value.what, raised.value.remedy))

    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)
    it.answer(**refusal(error))
    assert caught == [(error.what, error.remedy)]
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)


def test_a_reconciler_that_dies(it: Asking) -> None:
    """Is a refusal too; and one that is not there takes no order."""

    def again() -> None:
        with pytest.raises(PlatformError, match="ended while it changed the host"):
            it.orders.adjust(A, again)

    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)
    it.die()
    assert not it.orders.adjusting
    it.there = False
    with pytest.raises(PlatformError, match="being started"):
        it.orders.adjust(A, again)
    assert not it.orders.adjusting


def test_orders_with_an_answer(it: Asking) -> None:
    """A hash that is loaded or refused, connections that are counted or not."""
    said: list[Any] = []
    it.orders.load("flush chain", said.append)
    assert it.asked[0][0] == {"do": "hash", "text": "flush chain"}
    it.answer()
    it.orders.load("flush chain", said.append)
    it.answer(**refusal(PlatformError("nft said no")))
    it.there = False
    it.orders.load("flush chain", said.append)
    assert [error and error.what for error in said] == [
        None, "nft said no", "the reconciler is being started",
    ]  # fmt: skip
    counts: list[Any] = []
    it.orders.count(counts.append)
    it.there = True
    it.orders.count(counts.append)
    it.answer(marks={"7": 3})
    it.orders.count(counts.append)
    it.answer(**refusal(PlatformError("no conntrack")))
    it.orders.count(counts.append)
    it.die()
    assert counts == [None, {7: 3}, None, None]


def test_connections_that_are_over(it: Asking) -> None:
    """Are forgotten; where that cannot be, the log says so."""
    it.orders.forget((1, 2), (("192.0.2.1", 53, 53),), (3,))
    ((message, _),) = it.asked
    ports = [["192.0.2.1", 53, 53]]
    assert message == {"do": "forget", "marks": [1, 2], "passing": [3], "datagrams": ports}
    with structlog.testing.capture_logs() as logged:
        it.answer(**refusal(PlatformError("conntrack does not forget")))
    assert [line["event"] for line in logged] == ["connections that are over stay"]


def test_what_the_reconciler_says_by_itself(it: Asking) -> None:
    """Conditions are all that there are; a table made anew is told of; rubbish is logged."""
    conditions, renewed = Conditions(), list[int]()
    found = {"address 192.0.2.1/24 on eth0": ("unhealthy", "missing")}
    with structlog.testing.capture_logs() as logged:
        it.orders.hear(HostConditions(found).plain(), conditions, renewed.append)
        assert conditions.status == "unhealthy"
        it.orders.hear({"do": "conditions", "found": {"x": ["dead", 7]}}, conditions, print)
        assert conditions.status == "unhealthy"
        it.orders.hear(HostConditions({}).plain(), conditions, renewed.append)
        assert conditions.status == "healthy"
        it.orders.hear(Renewed((4, 6)).plain(), conditions, renewed.append)
    assert renewed == [4, 6]
    assert "invalid message from the reconciler" in [line["event"] for line in logged]
