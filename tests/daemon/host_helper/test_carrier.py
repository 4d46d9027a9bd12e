"""The carrier in the host helper: links follow the interfaces, counters are read by slot."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from waiting import descriptors

from paraglider.bpf.maps import CarrierMaps
from paraglider.daemon.host_helper import carrier as module
from paraglider.daemon.host_helper.carrier import CarrierAttachment
from paraglider.daemon.messages import CarrierDevices, SlotCount
from paraglider.errors import PlatformError
from paraglider.host import bpffs
from paraglider.host.carrier import LoadedCarrier
from paraglider.host.carrier_links import AT_XDP, AttachResult, CarrierLinks, detach_all
from paraglider.lab.namespace import Namespace
from tests.bpf.carrying import XDP_PASS
from tests.bpf.programs import UNSPEC, XDP, returns
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root


@pytest.fixture
def loaded(inside: Namespace, tmp_path: Path) -> Iterator[LoadedCarrier]:
    """A program that leaves packets alone, with maps."""
    pins = bpffs.open_pins(tmp_path / "bpf")
    found = LoadedCarrier(returns(UNSPEC), pins, CarrierMaps.create_for_test(flows=64))
    yield found
    detach_all(pins)
    found.close()
    bpffs.remove_pins(tmp_path / "bpf")


def wanting(*, bpf: bool = True, xdp: bool = False, public: str = "") -> Any:
    """A configuration that wants the programs, or not, with the interface ``public`` or none."""
    side = SimpleNamespace(interface=public) if public else None
    network = SimpleNamespace(public=side, private=None)
    return SimpleNamespace(wants_bpf=bpf, wants_xdp=xdp, network=network)


def attachment(loaded: LoadedCarrier, config: Any = None, *, on: bool = True) -> CarrierAttachment:
    """As the host helper makes it."""
    return CarrierAttachment(loaded, config or wanting(), structlog.get_logger(), on=on)


def test_interfaces_come_and_go(inside: Namespace, loaded: LoadedCarrier) -> None:
    """Each is attached once, and logged once."""
    carrier = attachment(loaded)
    with structlog.testing.capture_logs() as lines:
        carrier.reconcile()
        carrier.reconcile()
        inside.ip("link set eth1 down")
        carrier.reconcile()
        inside.ip("link set eth1 up")
        carrier.reconcile()
    said = [line["interface"] for line in lines if line["event"] == "carrier attached"]
    assert said == ["eth0", "eth1", "eth1"]
    assert carrier.read().devices == ("eth0", "eth1")


def test_the_switch(loaded: LoadedCarrier) -> None:
    """It is answered with the interfaces; a helper that is replaced begins as it was switched."""
    carrier = attachment(loaded)
    carrier.reconcile()
    assert carrier.switch(on=False) == CarrierDevices(devices=())
    again = attachment(loaded, on=False)
    again.reconcile()
    assert again.read().devices == ()
    assert again.switch(on=True) == CarrierDevices(devices=("eth0", "eth1"))


def test_while_no_service_wants_it_it_is_nowhere(loaded: LoadedCarrier) -> None:
    """A reload may leave no worker that has its flows. The switch is kept meanwhile, and a helper
    that is replaced begins as the configuration has it.
    """
    wants, not_ = wanting(), wanting(bpf=False)
    carrier = attachment(loaded)
    carrier.apply_config(wants)
    carrier.reconcile()
    carrier.apply_config(not_)
    assert carrier.read().devices == ()
    carrier.reconcile()
    assert carrier.switch(on=True) == CarrierDevices(devices=())
    again = attachment(loaded, not_)
    again.reconcile()
    assert again.read().devices == ()
    again.apply_config(wants)
    assert again.read().devices == ("eth0", "eth1")
    again.apply_config(not_)
    again.switch(on=False)
    again.apply_config(wants)
    assert again.read().devices == ()


def test_the_program_at_xdp(inside: Namespace, loaded: LoadedCarrier) -> None:
    """It is attached behind the one at tc and detached before; a reload may want the one at tc
    alone, or name other interfaces. One that cannot have it is logged once, and is no failure.
    """
    ready_for_xdp(inside)
    loaded = replace(loaded, early=returns(XDP_PASS, XDP))
    both = CarrierDevices(devices=("eth0", "eth1"), xdp=("eth0", "eth1"))
    carrier = attachment(loaded, wanting(xdp=True))
    carrier.reconcile()
    assert (carrier.read().devices, carrier.read().xdp) == (both.devices, both.xdp)
    assert carrier.switch(on=False) == CarrierDevices(devices=())
    assert not list(loaded.maps.devices.dump())
    assert carrier.switch(on=True) == both
    carrier.apply_config(wanting())
    assert (carrier.read().devices, carrier.read().xdp) == (both.devices, ())
    for side, names in (("eth0", ("eth0",)), ("eth1", ("eth1",)), ("", ("eth0", "eth1"))):
        carrier.apply_config(wanting(xdp=True, public=side))
        assert (carrier.read().devices, carrier.read().xdp) == (both.devices, names)
    inside.ip("link add plain type bridge", "link set plain up")
    with structlog.testing.capture_logs() as lines:
        carrier.reconcile()
        carrier.reconcile()
    (line,) = [line for line in lines if line["event"] == "carrier not at XDP, carries at tc"]
    assert (line["interface"], line["why"]) == ("plain", "its driver bridge has no XDP")
    assert carrier.read().xdp == both.xdp
    assert carrier.read().no_xdp == {"plain": "its driver bridge has no XDP"}
    os.close(loaded.early or 0)


def test_many_interfaces(loaded: LoadedCarrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with thousands of interfaces has a reading and an answer."""
    many = tuple(f"veth{number}" for number in range(5000))
    result = AttachResult((), many, {}, 0)
    monkeypatch.setattr(module.CarrierLinks, "reconcile", lambda _: result)
    carrier = attachment(loaded)
    carrier.reconcile()
    assert carrier.read().devices == many
    assert carrier.switch(on=True).devices == many


def test_a_refusal_is_logged_once(loaded: LoadedCarrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the reason changes; switching on where nothing can be attached is an error."""
    reason = "Device or resource busy"

    def refuse(*_: int) -> int:
        raise OSError(16, reason)

    monkeypatch.setattr(module.CarrierLinks, "_attach", refuse)
    carrier = attachment(loaded)
    with structlog.testing.capture_logs() as lines:
        carrier.reconcile()
        carrier.reconcile()
        reason = "Operation not permitted"
        carrier.reconcile()
    found = [(line["interface"], line["why"]) for line in lines]
    busy, denied = "Device or resource busy", "Operation not permitted"
    assert found == [("eth0", busy), ("eth1", busy), ("eth0", denied), ("eth1", denied)]
    assert carrier.read().failed == {"eth0": denied, "eth1": denied}
    carrier.switch(on=False)
    assert carrier.read().failed == {}
    with pytest.raises(PlatformError, match="no interface has the program: eth0: Operation"):
        carrier.switch(on=True)
    monkeypatch.undo()
    carrier.reconcile()  # the position is as it was: nothing is attached behind the answer
    assert carrier.read().devices == ()


BROKEN = "carrier not checked, interfaces keep what they have"


@pytest.mark.parametrize("hook", ["tc", "XDP"])
def test_interfaces_that_cannot_be_listed_keep_what_they_have(
    inside: Namespace, loaded: LoadedCarrier, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """At the one hook: the other is compared. It is logged once, and the next turn tries again."""
    ready_for_xdp(inside)
    loaded = replace(loaded, early=returns(XDP_PASS, XDP))
    carrier = attachment(loaded, wanting(xdp=True))
    carrier.reconcile()

    def broken(_: object) -> None:
        raise OSError(5, "Input/output error")

    inside.ip("link set eth1 down")
    with structlog.testing.capture_logs() as lines, monkeypatch.context() as patch:
        patch.setattr(CarrierLinks if hook == "tc" else module.XdpLinks, "reconcile", broken)
        if hook == "tc":  # the program at XDP has links of the same kind
            patch.setattr(
                module.XdpLinks, "reconcile", lambda _: AttachResult((), ("eth0",), {}, 1)
            )
        carrier.reconcile()
        carrier.reconcile()
    why = "[Errno 5] Input/output error"
    assert [(line["event"], line["hook"], line["why"]) for line in lines] == [(BROKEN, hook, why)]
    found = carrier.read()
    both, one = ("eth0", "eth1"), ("eth0",)
    assert (found.devices, found.xdp) == ((both, one) if hook == "tc" else (one, both))
    inside.ip("link set eth1 up")
    carrier.reconcile()
    assert carrier.read().devices == both
    os.close(loaded.early or 0)


@pytest.mark.parametrize(
    ("tc", "xdp", "event", "why"),
    [
        ({}, {"eth0": "no XDP"}, "carrier not at XDP, carries at tc", "no XDP"),
        ({"eth0": "busy"}, {}, "carrier not attached, XDP and workers carry", "busy"),
        ({"eth0": "busy"}, {"eth0": "no XDP"}, "carrier not attached, workers carry", "busy"),
    ],
)
def test_what_carries_where_a_hook_is_refused(
    loaded: LoadedCarrier,
    monkeypatch: pytest.MonkeyPatch,
    tc: dict[str, str],
    xdp: dict[str, str],
    event: str,
    why: str,
) -> None:
    """One line for an interface has what carries there now."""
    loaded = replace(loaded, early=returns(XDP_PASS, XDP))
    for links, failed in ((CarrierLinks, tc), (module.XdpLinks, xdp)):
        result = AttachResult((), tuple({"eth0", "eth1"} - failed.keys()), failed, 0)
        monkeypatch.setattr(links, "reconcile", lambda _, result=result: result)
    carrier = attachment(loaded, wanting(xdp=True))
    with structlog.testing.capture_logs() as lines:
        carrier.reconcile()
        carrier.reconcile()
    assert [(line["event"], line["interface"], line["why"]) for line in lines] == [
        (event, "eth0", why)
    ]
    assert (carrier.read().failed, carrier.read().no_xdp) == (tc, xdp)
    os.close(loaded.early or 0)


@pytest.mark.parametrize("refused", ["tc", "XDP"])
def test_a_switch_that_fails_changes_nothing(
    inside: Namespace, loaded: LoadedCarrier, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Whichever hook cannot be detached: the other is attached again, and so is a turn later."""
    ready_for_xdp(inside)
    loaded = replace(loaded, early=returns(XDP_PASS, XDP))
    carrier = attachment(loaded, wanting(xdp=True))
    carrier.reconcile()
    kind = CarrierLinks if refused == "tc" else module.XdpLinks
    whole = kind.switch

    def refusing(links: Any, *, on: bool) -> AttachResult:
        if not on and getattr(links, "_hook", None) is not AT_XDP:
            raise OSError(16, "Device or resource busy")
        return whole(links, on=on)

    monkeypatch.setattr(kind, "switch", refusing)
    with pytest.raises(PlatformError, match="the kernel refuses: Device or resource busy"):
        carrier.switch(on=False)
    both = ("eth0", "eth1")
    for _ in range(2):
        assert (carrier.read().devices, carrier.read().xdp) == (both, both)
        carrier.reconcile()
    os.close(loaded.early or 0)


def test_counters_are_those_of_the_slots(loaded: LoadedCarrier) -> None:
    """By the slot's name, summed over the CPUs, and over slots of one name; reasons by theirs."""
    maps = loaded.maps
    cpus = maps.traffic.value_size // 32
    for index, counts in ((7, (1, 70, 0, 200)), (8, (0, 30, 2, 0))):
        maps.slots.put(struct.pack("=I", index), b"slotname")
        maps.traffic.put(struct.pack("=I", index), struct.pack("=4Q", *counts) * cpus)
    maps.reasons.put(struct.pack("=I", 8), struct.pack("=Q", 5) * cpus)
    found = attachment(loaded).read()
    assert found.slots == {b"slotname".hex(): SlotCount(cpus, 100 * cpus, 2 * cpus, 200 * cpus)}
    assert found.reasons["syn"] == 5 * cpus
    assert sum(found.reasons.values()) == 5 * cpus


def test_a_duplicate_is_another_processes(loaded: LoadedCarrier) -> None:
    """Closing it leaves the first at work."""
    before = descriptors()
    loaded.duplicate().close()
    assert descriptors() == before
    carrier = attachment(loaded)
    carrier.reconcile()
    assert carrier.read().devices == ("eth0", "eth1")
