"""Links at XDP, and the list of interfaces from which and by which XDP may carry."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from paraglider.bpf import syscall
from paraglider.bpf.layout import DEVICE, DEVICES, INDEX
from paraglider.bpf.maps import SHAPES, Map, create
from paraglider.host import bpffs
from paraglider.host.carrier_links import detach_all, is_attached
from paraglider.host.xdp_links import XdpLinks
from paraglider.lab.namespace import Namespace
from tests.bpf.carrying import XDP_PASS
from tests.bpf.programs import XDP, returns
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _ready(inside: Namespace) -> None:
    """The links of the namespace are ready for XDP."""
    ready_for_xdp(inside)


@pytest.fixture
def program() -> Iterator[int]:
    """A program that leaves packets alone."""
    number = returns(XDP_PASS, XDP)
    yield number
    os.close(number)


@pytest.fixture
def devices() -> Iterator[Map]:
    """An empty list."""
    shape = SHAPES["devices"]
    found = Map(create("devices", DEVICES), shape.key_size, shape.value_size)
    yield found
    os.close(found.fd)


def listed(devices: Map) -> dict[str, tuple[bytes, int]]:
    """MAC address, and whether it takes frames of XDP, by interface."""
    found = {}
    for keys, values, count in devices.dump():
        for at in range(count):
            (index,) = INDEX.unpack_from(keys, at * INDEX.size)
            found[socket.if_indextoname(index)] = DEVICE.unpack_from(values, at * DEVICE.size)
    return found


def programs(pins: int) -> dict[str, int]:
    """The programs of the pinned links, by interface."""
    found = {}
    for name in bpffs.names(pins):
        assert name.startswith("xdp-")
        link = syscall.pinned(pins, name)
        info = syscall.link_info(link)
        os.close(link)
        found[socket.if_indextoname(info.interface)] = info.program
    return found


def test_it_is_attached_and_detached(pins: int, program: int, devices: Map) -> None:
    """With the list of interfaces; a second run changes nothing, and off leaves nothing."""
    links = XdpLinks(program, pins, devices)
    result = links.reconcile()
    assert (result.attached, result.present, result.failed) == (("eth0", "eth1"),) * 2 + ({},)
    assert programs(pins) == dict.fromkeys(("eth0", "eth1"), syscall.program_id(program))
    assert {name: sends for name, (_, sends) in listed(devices).items()} == {"eth0": 1, "eth1": 1}
    again = links.reconcile()
    assert (again.attached, again.present, again.detached) == ((), ("eth0", "eth1"), 0)
    assert links.switch(on=False).present == ()
    assert (programs(pins), listed(devices)) == ({}, {})
    assert links.switch(on=True).present == ("eth0", "eth1")
    assert is_attached(pins)
    detach_all(pins)
    assert bpffs.names(pins) == []


def test_another_mac_address_is_listed(
    inside: Namespace, pins: int, program: int, devices: Map
) -> None:
    """With the next turn, as for an interface that goes."""
    links = XdpLinks(program, pins, devices)
    links.reconcile()
    inside.ip("link set eth0 address 02:00:00:00:00:07")
    links.reconcile()
    assert listed(devices)["eth0"] == (bytes.fromhex("020000000007"), 1)
    inside.ip("link set eth1 down")
    assert links.reconcile().detached == 1
    assert set(listed(devices)) == {"eth0"}


def test_only_named_interfaces(pins: int, program: int, devices: Map) -> None:
    """Others have no program, but take frames if they can."""
    result = XdpLinks(program, pins, devices, ["eth0"]).reconcile()
    assert (result.present, result.failed) == (("eth0",), {})
    assert set(listed(devices)) == {"eth0", "eth1"}


def test_another_program_stays(pins: int, program: int, devices: Map) -> None:
    """That interface has a reason, and is attached when the other program has gone."""
    theirs = syscall.attach_xdp(program, socket.if_nametoindex("eth0"))
    links = XdpLinks(program, pins, devices)
    result = links.reconcile()
    assert result.present == ("eth1",)
    assert result.failed == {"eth0": "another program is at its XDP (see `bpftool net`)"}
    os.close(theirs)
    assert links.reconcile().present == ("eth0", "eth1")


def test_a_new_program_replaces_the_old_one(pins: int, program: int, devices: Map) -> None:
    """In the same link, so that no packet passes between the two."""
    XdpLinks(program, pins, devices).reconcile()
    before = bpffs.names(pins)
    newer = returns(XDP_PASS, XDP)
    XdpLinks(newer, pins, devices).reconcile()
    assert bpffs.names(pins) == before
    assert set(programs(pins).values()) == {syscall.program_id(newer)}
    os.close(newer)
