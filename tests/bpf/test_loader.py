"""libbpf loads the real object; whatever cannot be loaded is a sentence."""

from __future__ import annotations

import gc
import os
import struct
from collections.abc import Iterator

import pytest

from paraglider.bpf import loader, syscall
from paraglider.bpf.loader import LoadError, load
from paraglider.bpf.maps import CarrierMaps
from paraglider.host.carrier_support import EARLY_PROGRAM, PROGRAM, object_file

pytestmark = pytest.mark.root


@pytest.fixture
def maps() -> Iterator[CarrierMaps]:
    """Maps of its own."""
    found = CarrierMaps.create_for_test(flows=64)
    yield found
    found.close()


def test_the_program_runs_with_our_maps(maps: CarrierMaps) -> None:
    """What it counts is counted in them: of 3 packets that are no IP, 3."""
    program = load(object_file(), PROGRAM, maps.numbers)
    result = syscall.run_program(program, bytes(12) + b"\x08\x06" + bytes(46), 1, repeat=3)
    assert result.value == 0xFFFF_FFFF  # TC_ACT_UNSPEC
    assert maps.reasons.total(1) == (3,)
    assert not os.get_inheritable(program)
    os.close(program)


@pytest.mark.parametrize("name", [PROGRAM, EARLY_PROGRAM])
def test_the_verifier_follows_few_instructions(maps: CarrierMaps, name: str) -> None:
    """At most a quarter of the million that it allows, so that kernels which see fewer paths as the
    same load the program too, and each start takes little time.
    """
    program = load(object_file(), name, maps.numbers)
    followed = struct.unpack_from("=I", syscall._info(program, 232), 216)[0]  # verified_insns
    os.close(program)
    assert 1000 < followed < 250_000


def test_a_map_or_program_that_it_does_not_have(maps: CarrierMaps) -> None:
    """Object and daemon are of different versions."""
    with pytest.raises(LoadError, match="has no program other: it is of another version"):
        load(object_file(), "other", maps.numbers)
    with pytest.raises(LoadError, match="has no map other: it is of another version"):
        load(object_file(), PROGRAM, {**maps.numbers, "other": maps.slots.fd})


def test_rubbish_is_refused_with_libbpfs_words() -> None:
    """On one line."""
    with pytest.raises(LoadError, match="the object file cannot be read: .*ELF") as caught:
        load(b"\x7fELF" + bytes(100), PROGRAM, {})
    assert "\n" not in str(caught.value)


def test_the_verifiers_last_lines_are_in_the_error(maps: CarrierMaps) -> None:
    """A map of flows that holds too little: the kernel says what the program did."""
    small = syscall.create_map(syscall.ARRAY, 4, 8, 16)
    with pytest.raises(LoadError, match="the kernel refuses the program: ") as caught:
        load(object_file(), PROGRAM, {**maps.numbers, "translations": small})
    assert caught.value.number == 13  # EACCES
    assert "invalid access to map value" in str(caught.value)
    assert "\n" not in str(caught.value)
    os.close(small)


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch, maps: CarrierMaps) -> None:
    """The error names it."""
    monkeypatch.setattr(loader, "_LIBRARY", "libbpf.so.none")
    with pytest.raises(LoadError, match=r"libbpf\.so\.none cannot be loaded"):
        load(object_file(), PROGRAM, maps.numbers)


def test_nothing_is_left_open(maps: CarrierMaps) -> None:
    """A failure leaves no descriptor, a success one."""
    gc.collect()  # or what an earlier test has left would be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(LoadError):
        load(object_file(), "other", maps.numbers)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    program = load(object_file(), PROGRAM, maps.numbers)
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
    os.close(program)
