"""Requests to the host helper: sent once, continued when answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.ipc import Done
from paraglider.daemon.messages import (
    Acknowledged,
    ApplyHost,
    CarrierDevices,
    ConnectionCounts,
    ForgetConnections,
    HostAddresses,
    HostChanged,
    HostConditions,
    LoadRules,
    Message,
    Refusal,
    SwitchCarrier,
    TablesRestored,
)
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.errors import OperatorError, PlatformError


def config(backend: str) -> Config:
    """A configuration of one service."""
    service = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": [backend]}
    return Config.model_validate({"services": [service]})


A, B = config("10.0.0.1"), config("10.0.0.2")


class Asking:
    """A host helper that answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, Done]] = []
        self.there = True
        self.orders = HostRequests(self, lambda: 5 if self.there else None)

    def request(self, to: Iterable[int], message: Message, deadline: float, done: Done) -> None:
        """See ``Broadcasts``."""
        assert list(to) == [5]
        self.asked.append((message, done))

    def answer(self, answer: Message) -> None:
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
    """The requester is called again, and then gets the changes; a further call is a new request."""
    said: list[Any] = []

    def again() -> None:
        said.append(it.orders.adjust(A, again))

    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)
    assert it.orders.adjusting
    ((message, _),) = it.asked
    assert message == ApplyHost(config=A)
    it.answer(HostChanged(done=("rules",)))
    assert said == [["rules"]]
    assert not it.orders.adjusting
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)


def test_another_waits(it: Asking) -> None:
    """Its configuration is not requested meanwhile, and it does not get the other's result."""
    waiting: list[Callable[[], object]] = []
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, lambda: waiting.append(lambda: None))
    with pytest.raises(HostPendingError):
        it.orders.adjust(B, lambda: None)
    assert len(it.asked) == 1
    it.answer(HostChanged(done=("a",)))
    assert len(waiting) == 1
    with pytest.raises(HostPendingError):
        it.orders.adjust(B, lambda: None)
    assert it.asked[0][0] == ApplyHost(config=B)


@pytest.mark.parametrize("error", [OperatorError("no", "do so"), PlatformError("the step failed")])
def test_a_refusal(it: Asking, error: Any) -> None:
    """It is raised once, with its text; the next call sends a new request."""
    caught: list[Any] = []

    def again() -> None:
        with pytest.raises(type(error)) as raised:
            it.orders.adjust(A, again)
        caught.append((raised.value.what, raised.value.remedy))

    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)
    it.answer(Refusal.of(error))
    assert caught == [(error.what, error.remedy)]
    with pytest.raises(HostPendingError):
        it.orders.adjust(A, again)


def test_a_host_helper_that_dies(it: Asking) -> None:
    """It is an error too; without a host helper the request fails at once."""

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
    assert it.asked[0][0] == LoadRules(text="flush chain")
    it.answer(Acknowledged())
    it.orders.load("flush chain", said.append)
    it.answer(Refusal.of(PlatformError("nft said no")))
    it.there = False
    it.orders.load("flush chain", said.append)
    assert [error and error.what for error in said] == [
        None, "nft said no", "the host helper is being started",
    ]  # fmt: skip
    counts: list[Any] = []
    it.orders.count(counts.append)
    it.there = True
    it.orders.count(counts.append)
    it.answer(ConnectionCounts(marks={7: 3}))
    it.orders.count(counts.append)
    it.answer(Refusal.of(PlatformError("no conntrack")))
    it.orders.count(counts.append)
    it.die()
    assert counts == [None, {7: 3}, None, None]


def test_connections_that_are_over(it: Asking) -> None:
    """They are deleted; an error is logged."""
    it.orders.forget((1, 2), (("192.0.2.1", 53, 53),), (3,))
    ((message, _),) = it.asked
    ports = (("192.0.2.1", 53, 53),)
    assert message == ForgetConnections(marks=(1, 2), passing=(3,), datagrams=ports)
    with structlog.testing.capture_logs() as logged:
        it.answer(Refusal.of(PlatformError("conntrack does not forget")))
    assert [line["event"] for line in logged] == ["ended connections not deleted"]


def test_what_the_host_helper_reports(it: Asking) -> None:
    """Conditions are complete; a recreated table is reported; the last addresses are kept."""
    conditions, renewed = Conditions(), list[int]()
    found = HostConditions.of({"address 192.0.2.1/24 on eth0": ("unhealthy", "missing")})
    it.orders.on_message(found, conditions, renewed.append)
    assert conditions.status == "unhealthy"
    it.orders.on_message(HostConditions.of({}), conditions, renewed.append)
    assert conditions.status == "healthy"
    it.orders.on_message(TablesRestored(families=(4, 6)), conditions, renewed.append)
    assert renewed == [4, 6]
    assert it.orders.addresses is None
    addresses = HostAddresses(interfaces=("eth0",), addresses={})
    it.orders.on_message(addresses, conditions, renewed.append)
    assert it.orders.addresses == addresses


def test_the_program_is_attached_and_detached(it: Asking) -> None:
    """The answer has the interfaces; a refusal, and a helper that died, are errors."""
    got: list[Any] = []
    it.orders.attach(True, got.append)
    assert it.asked[0][0] == SwitchCarrier(on=True)
    it.answer(CarrierDevices(devices=("eth0",)))
    for refuse in (lambda: it.answer(Refusal(error="no", fault="platform")), it.die):
        it.orders.attach(False, got.append)
        refuse()
    it.there = False
    it.orders.attach(False, got.append)
    devices, *errors = got
    assert devices == CarrierDevices(devices=("eth0",))
    assert [type(error) for error in errors] == [PlatformError] * 3
