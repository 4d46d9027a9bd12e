"""bpf(2) on real objects: pins by directory, links beside those of others, updates, test runs."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paraglider.bpf import syscall
from paraglider.lab.namespace import Namespace
from tests.bpf.programs import OK, UNSPEC, returns

pytestmark = pytest.mark.root

LOOPBACK = 1


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[int]:
    """The open directory of a bpffs of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"bpf", bytes(tmp_path), b"bpf", 0, None) == 0, os.strerror(
        ctypes.get_errno()
    )
    number = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield number
    os.close(number)
    assert libc.umount2(bytes(tmp_path), 0) == 0


@pytest.fixture
def closing_numbers() -> Iterator[Callable[[int], int]]:
    """Closes descriptors after the test."""
    numbers: list[int] = []

    def keep(number: int) -> int:
        numbers.append(number)
        return number

    yield keep
    for number in numbers:
        os.close(number)


def test_a_pin_outlives_its_descriptor(bpffs: int) -> None:
    """The map that is found by its pin is the one that was pinned; without a pin there is none."""
    number = syscall.create_map(syscall.ARRAY, 4, 8, 3, name="pinned")
    syscall.pin(number, bpffs, "one")
    os.close(number)
    again = syscall.pinned(bpffs, "one")
    assert syscall.map_info(again) == syscall.MapInfo(syscall.ARRAY, 4, 8, 3, 0)
    os.close(again)
    with pytest.raises(FileNotFoundError):
        syscall.pinned(bpffs, "two")
    os.unlink("one", dir_fd=bpffs)


def test_descriptors_do_not_outlive_exec() -> None:
    """No program that is run inherits a map."""
    number = syscall.create_map(syscall.ARRAY, 4, 8, 3)
    assert not os.get_inheritable(number)
    os.close(number)


def test_a_refusal_is_an_error() -> None:
    """With the kernel's number."""
    with pytest.raises(OSError, match="Invalid argument"):
        syscall.create_map(syscall.ARRAY, 5, 8, 3)


def test_a_link_is_updated_and_detached(
    inside: Namespace, closing_numbers: Callable[[int], int]
) -> None:
    """Its program changes in place; detached, it has no interface."""
    first, second = closing_numbers(returns(UNSPEC)), closing_numbers(returns(OK))
    link = closing_numbers(syscall.attach_tcx(first, LOOPBACK))
    found = syscall.link_info(link)
    assert (found.program, found.interface) == (syscall.program_id(first), LOOPBACK)
    syscall.update_link(link, second)
    assert syscall.link_info(link).program == syscall.program_id(second)
    syscall.detach_link(link)
    assert syscall.link_info(link).interface == 0


def test_links_of_two_stand_side_by_side(
    inside: Namespace, closing_numbers: Callable[[int], int]
) -> None:
    """Attaching does not disturb a program that is there, and detaching leaves it."""
    theirs = closing_numbers(syscall.attach_tcx(closing_numbers(returns(UNSPEC)), LOOPBACK))
    ours = closing_numbers(syscall.attach_tcx(closing_numbers(returns(UNSPEC)), LOOPBACK))
    assert syscall.link_info(theirs).interface == LOOPBACK
    syscall.detach_link(ours)
    assert syscall.link_info(theirs).interface == LOOPBACK


def test_a_run_has_the_packet(closing_numbers: Callable[[int], int]) -> None:
    """The program's return value, its time, and the packet as it left."""
    frame = bytes(range(14, 74))
    result = syscall.run_program(closing_numbers(returns(OK)), frame, LOOPBACK, repeat=3)
    assert (result.value, result.packet) == (OK, frame)
    unspecified = syscall.run_program(closing_numbers(returns(UNSPEC)), frame)
    assert unspecified.value == UNSPEC & 0xFFFF_FFFF


def test_the_interface_of_a_link_that_is_gone(
    inside: Namespace, closing_numbers: Callable[[int], int]
) -> None:
    """A link whose interface is removed has the interface 0."""
    inside.ip("link add gone type veth peer name other")
    index = socket.if_nametoindex("gone")
    link = closing_numbers(syscall.attach_tcx(closing_numbers(returns(OK)), index))
    assert syscall.link_info(link).interface == index
    inside.ip("link del gone")
    assert syscall.link_info(link).interface == 0
