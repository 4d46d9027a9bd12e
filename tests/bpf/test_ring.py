"""Events that a real program sends to a real ring, in both builds."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from paraglider.bpf.layout import RING_BYTES
from paraglider.bpf.maps import create_ring
from paraglider.bpf.ring import Ring, open_ring
from paraglider.bpf.syscall import run_program
from tests.bpf.programs import sends

pytestmark = pytest.mark.root

FRAME = bytes(60)
KINDS: dict[str, Callable[[int, int], Any]] = {"interpreted": Ring, "chosen": open_ring}


@pytest.fixture
def number() -> Iterator[int]:
    """The descriptor of a ring."""
    ring = create_ring()
    yield ring
    os.close(ring)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Callable[[int, int], Any]:
    """A ring, interpreted or as the build has it."""
    return KINDS[request.param]


def send(number: int, value: int, times: int = 1, size: int = 8) -> None:
    """Have a program send ``value``."""
    program = sends(number, value, size)
    run_program(program, FRAME, repeat=times)
    os.close(program)


def test_records_come_once_and_in_order(number: int, kind: Callable[[int, int], Any]) -> None:
    """As the program sent them; a ring without news is empty."""
    with closing(kind(number, RING_BYTES)) as ring:
        assert ring.read(10) == []
        for value in (1, 2, 3):
            send(number, value)
        assert ring.read(2) == [struct.pack("=Q", 1), struct.pack("=Q", 2)]
        assert ring.read(2) == [struct.pack("=Q", 3)]
        assert ring.read(2) == []


def test_the_next_reader_continues(number: int, kind: Callable[[int, int], Any]) -> None:
    """The position is in the ring, so nothing is read twice and nothing is lost by a restart."""
    send(number, 1, times=2)
    with closing(kind(number, RING_BYTES)) as ring:
        assert len(ring.read(1)) == 1
    send(number, 2)
    with closing(kind(number, RING_BYTES)) as ring:
        assert ring.read(10) == [struct.pack("=Q", 1), struct.pack("=Q", 2)]


def test_a_ring_goes_round(number: int, kind: Callable[[int, int], Any]) -> None:
    """What crosses the end of the buffer is read in one piece."""
    with closing(kind(number, RING_BYTES)) as ring:
        most = RING_BYTES // 24  # records of 16 bytes with their heads
        send(number, 7, times=most - 1, size=16)
        assert len(ring.read(RING_BYTES)) == most - 1
        send(number, 9, times=10, size=16)
        assert ring.read(20) == [struct.pack("=QQ", 0, 9)] * 10


def test_a_full_ring_keeps_its_records(number: int, kind: Callable[[int, int], Any]) -> None:
    """The program's further records are refused until the reader has read."""
    with closing(kind(number, RING_BYTES)) as ring:
        send(number, 5, times=RING_BYTES // 16 + 100)
        found = ring.read(RING_BYTES)
        assert set(found) == {struct.pack("=Q", 5)}
        assert RING_BYTES // 16 - 1 <= len(found) <= RING_BYTES // 16
        send(number, 6)
        assert ring.read(10) == [struct.pack("=Q", 6)]


def test_no_ring_no_reader(kind: Callable[[int, int], Any]) -> None:
    """What cannot be mapped is an error."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError):  # noqa: PTH123, PT011
        kind(file.fileno(), RING_BYTES)
