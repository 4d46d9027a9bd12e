"""Links follow the interfaces of a namespace, beside programs of others."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.bpf import syscall
from paraglider.host import bpffs
from paraglider.host.carrier_links import CarrierLinks, detach_all, is_attached
from paraglider.host.link_state import ethernet_links
from paraglider.host.ownership import netns_cookie
from paraglider.lab.namespace import Namespace
from tests.bpf.programs import UNSPEC, returns

pytestmark = pytest.mark.root


@pytest.fixture
def program() -> Iterator[int]:
    """A program that leaves packets alone."""
    number = returns(UNSPEC)
    yield number
    os.close(number)


def programs(pins: int) -> dict[str, int]:
    """The programs of the pinned links, by interface."""
    found = {}
    for name in bpffs.names(pins):
        link = syscall.pinned(pins, name)
        info = syscall.link_info(link)
        os.close(link)
        found[socket.if_indextoname(info.interface)] = info.program
    return found


def test_ethernet_interfaces_that_are_up_have_it(
    inside: Namespace, pins: int, program: int
) -> None:
    """Not loopback, not what is down; a second run changes nothing."""
    inside.ip("link set eth1 down")
    links = CarrierLinks(program, pins)
    result = links.reconcile()
    assert (result.attached, result.present) == (("eth0",), ("eth0",))
    assert (result.failed, result.detached) == ({}, 0)
    assert programs(pins) == {"eth0": syscall.program_id(program)}
    again = links.reconcile()
    assert (again.attached, again.present, again.detached) == ((), ("eth0",), 0)


def test_a_bridge_has_it_and_its_ports_have_not(inside: Namespace, pins: int, program: int) -> None:
    """An interface that becomes a port gives it up."""
    links = CarrierLinks(program, pins)
    assert links.reconcile().present == ("eth0", "eth1")
    inside.ip(
        "link add bridge type bridge",
        "link set bridge up",
        "link set eth1 master bridge",
    )
    result = links.reconcile()
    assert result.present == ("bridge", "eth0")
    assert result.detached == 1
    assert set(programs(pins)) == {"bridge", "eth0"}


def test_interfaces_without_ethernets_head_are_left_out(inside: Namespace) -> None:
    """The program reads that head."""
    inside.ip("tuntap add tun0 mode tun", "link set tun0 up")
    assert "tun0" not in ethernet_links().values()
    assert set(ethernet_links().values()) == {"eth0", "eth1"}


def test_an_interface_goes_and_comes(inside: Namespace, pins: int, program: int) -> None:
    """Its link goes with it, and the new one, which may have its name, gets another."""
    links = CarrierLinks(program, pins)
    links.reconcile()
    inside.ip("link del eth0")
    result = links.reconcile()
    assert (result.present, result.detached) == ((), 2)  # both ends of the pair
    assert bpffs.names(pins) == []
    inside.ip("link add eth0 type veth peer name eth1", "link set eth0 up")
    assert links.reconcile().attached == ("eth0",)


def test_the_next_daemon_swaps_the_program(inside: Namespace, pins: int, program: int) -> None:
    """In the same links: nothing is detached and attached again."""
    CarrierLinks(program, pins).reconcile()
    before = bpffs.names(pins)
    ids = [syscall.link_info(syscall.pinned(pins, name)).link for name in before]
    newer = returns(UNSPEC)
    result = CarrierLinks(newer, pins).reconcile()
    assert (result.attached, result.detached) == ((), 0)
    assert set(programs(pins).values()) == {syscall.program_id(newer)}
    assert [syscall.link_info(syscall.pinned(pins, name)).link for name in before] == ids
    os.close(newer)


def test_it_is_switched_off_and_on(inside: Namespace, pins: int, program: int) -> None:
    """Off, it stays off at every interface, also those that come."""
    links = CarrierLinks(program, pins)
    links.reconcile()
    assert links.switch(on=False).present == ()
    assert links.reconcile().attached == ()
    assert bpffs.names(pins) == []
    assert not is_attached(pins)
    assert links.switch(on=True).attached == ("eth0", "eth1")
    assert is_attached(pins)


def test_programs_of_others_stay(inside: Namespace, pins: int, program: int) -> None:
    """Attaching, swapping and detaching ours leaves theirs attached."""
    index, other = socket.if_nametoindex("eth0"), returns(UNSPEC)
    theirs = syscall.attach_tcx(other, index)
    os.close(other)
    links = CarrierLinks(program, pins)
    assert links.reconcile().present == ("eth0", "eth1")
    assert syscall.link_info(theirs).interface == index
    links.switch(on=False)
    assert syscall.link_info(theirs).interface == index
    os.close(theirs)


def test_a_refusal_is_that_interfaces_own(
    inside: Namespace, pins: int, program: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernel's reason; the others are attached, and one that has just gone is none."""
    index, attach = socket.if_nametoindex("eth0"), syscall.attach_tcx

    def refusing(program: int, interface: int) -> int:
        if interface == index:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return attach(program, interface)

    monkeypatch.setattr(syscall, "attach_tcx", refusing)
    links = CarrierLinks(program, pins, lambda: {**ethernet_links(), 99_999: "gone"})
    result = links.reconcile()
    assert result.failed == {"eth0": "Device or resource busy"}
    assert result.present == ("eth1",)


def test_after_an_undo_nothing_is_attached(inside: Namespace, tmp_path: Path, program: int) -> None:
    """The directory is gone, though this process has it open: a daemon may still be at work."""
    place = tmp_path / "bpf"
    pins = bpffs.open_pins(place)
    links = CarrierLinks(program, pins)
    assert links.reconcile().present == ("eth0", "eth1")
    detach_all(pins)
    (place / f"{netns_cookie():x}").rmdir()
    result = links.reconcile()
    assert (result.attached, result.present, result.failed) == ((), (), {})
    os.close(pins)
    bpffs.remove_pins(place)
