"""Tests of ``paraglider.daemon.conditions.carrier``: the position changes after the host helper."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog

from paraglider.config.model import Service
from paraglider.daemon.conditions.carrier import CarrierSwitch, Switched
from paraglider.daemon.messages import CarrierDevices, CarrierReading, Message, SetCarrier
from paraglider.errors import OperatorError, ParagliderError, PlatformError


class Host:
    """A host helper that answers when the test calls ``answer``, and the messages to workers."""

    def __init__(self, lacking: str = "") -> None:
        self.asked: list[tuple[bool, Switched]] = []
        self.sent: list[Message] = []
        self.ended: list[ParagliderError | None] = []
        self.switch = CarrierSwitch(lacking)
        self.applied: list[Callable[[], object]] = []
        self.switch.connect(lambda on, then: self.asked.append((on, then)), self._send)

    def _send(self, message: Message, then: Callable[[], object]) -> None:
        self.sent.append(message)
        self.applied.append(then)

    def apply(self) -> None:
        """The workers have applied what was sent."""
        while self.applied:
            self.applied.pop(0)()

    def ask(self, on: bool) -> None:
        """The operator switches."""
        self.switch.switch(on, self.ended.append)

    def answer(self, result: CarrierDevices | ParagliderError) -> bool:
        """The host helper is done; returns which way."""
        on, then = self.asked.pop(0)
        then(result)
        return on


def test_off_and_on_again() -> None:
    """The workers are told after the host helper has switched the program, and waited for."""
    host = Host()
    assert (host.switch.able, host.switch.on) == (True, True)
    host.ask(False)
    assert (host.switch.on, host.sent, host.ended) == (True, [], [])
    assert host.answer(CarrierDevices(devices=())) is False
    assert (host.switch.on, host.sent, host.ended) == (False, [SetCarrier(on=False)], [])
    host.apply()
    assert host.ended == [None]
    host.ask(True)
    assert host.answer(CarrierDevices(devices=("eth0", "eth1"))) is True
    assert (host.switch.on, host.switch.read.devices) == (True, ("eth0", "eth1"))
    assert host.sent[1:] == [SetCarrier(on=True)]


def test_a_program_that_cannot_be_attached() -> None:
    """The position stays off, and the workers are not told to install flows."""
    host = Host()
    host.ask(False)
    host.answer(CarrierDevices(devices=()))
    host.apply()
    host.ask(True)
    error = PlatformError("no such device")
    host.answer(error)
    assert (host.switch.on, host.sent, host.ended) == (False, [SetCarrier(on=False)], [None, error])


def test_where_bpf_cannot_carry() -> None:
    """The error has the reason, and the host helper gets no request."""
    host = Host("the kernel is 6.1, tcx links need 6.6")
    assert (host.switch.able, host.switch.on) == (False, False)
    for on in (True, False):
        with pytest.raises(OperatorError, match=r"carries no flow here: the kernel is 6\.1"):
            host.ask(on)
    assert (host.asked, host.sent, host.ended) == ([], [], [])


def test_before_the_daemon_has_started() -> None:
    """It is the platform's fault, and worth another try."""
    ended: list[ParagliderError | None] = []
    CarrierSwitch("").switch(False, ended.append)
    assert isinstance(ended[0], PlatformError)


def test_what_decides_is_logged_when_it_changes() -> None:
    """At the start, by a reload, by the operator's switch, and without room for a table; once."""
    auto, mine = service("a", decide="auto"), service("b", affinity="client", decide="auto")
    plain = service("c")
    rows: list[tuple[list[Service], bool, set[str], list[str]]] = [
        ([auto, mine], True, set(), ["kernel a", "python b"]),
        ([auto, mine], True, set(), []),
        ([auto, service("b", decide="auto")], True, set(), ["kernel b"]),
        ([auto], True, {"a"}, ["python a"]),
        ([auto], True, set(), ["kernel a"]),
        ([auto], False, set(), ["python a"]),
        ([auto], False, set(), []),
        ([auto, plain], True, set(), ["kernel a", "python c"]),
        ([auto, plain], False, set(), ["python a"]),
        ([auto, plain], True, set(), ["kernel a"]),
        ([service("a", carrier="worker")], True, set(), []),
        ([auto, plain], True, set(), ["kernel a", "python c"]),
    ]
    with structlog.testing.capture_logs() as lines:
        switch = CarrierSwitch("")
        for services, on, unplaced, expected in rows:
            lines.clear()
            switch.on, switch.unplaced = on, frozenset(unplaced)
            switch.log_deciders(services)
            assert [f"{line['by']} {line['services']}" for line in lines] == expected


def service(name: str, **keys: str) -> Service:
    """A service with these keys."""
    plain = {"name": name, "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**plain, **keys})


def test_conditions_of_interfaces() -> None:
    """Each that the kernel refuses, with what carries there; none while it is switched off."""
    switch = CarrierSwitch("", xdp=True)
    assert switch.assess() == {}
    failed = {"eth0": "busy", "eth1": "no memory"}
    switch.read = CarrierReading(devices=("eth2",), xdp=("eth1",), failed=failed)
    rest = "carry what comes in there"
    assert {name: each.text for name, each in switch.assess().items()} == {
        "interface eth0": f"the BPF program is not attached, so workers {rest}: busy",
        "interface eth1": (
            f"the BPF program is not attached, so XDP and workers {rest}: no memory"
        ),
    }
    assert {each.severity for each in switch.assess().values()} == {"degraded"}
    switch.on = False
    assert switch.assess() == {}
