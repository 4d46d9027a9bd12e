"""Requests to netfilter: their bytes, and answers taken apart, also hostile ones."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.lab.namespace import Namespace
from paraglider.netfilter import nfnetlink
from paraglider.netfilter.nfnetlink import attribute


def test_a_request() -> None:
    """Length, subsystem and kind, flags with REQUEST; then the family."""
    made = nfnetlink.message(10, 19, 2, b"\x08\x00\x01\x00abcd", nfnetlink.NLM_F_ACK)
    assert struct.unpack_from("=IHHII", made) == (28, 10 << 8 | 19, 5, 0, 0)
    assert made[16] == 2
    assert made.endswith(b"abcd")


@pytest.mark.parametrize("size", range(9))
def test_attributes_are_padded_to_four_bytes(size: int) -> None:
    """The length field counts header and payload; zeroes fill up to the next multiple of four."""
    data = bytes(range(1, size + 1))
    made = attribute(10, data)
    assert len(made) % 4 == 0
    assert struct.unpack_from("=HH", made) == (4 + size, 10)
    assert made[4 : 4 + size] == data
    assert made[4 + size :] == bytes(-size % 4)


def test_several_messages_in_one_datagram() -> None:
    """Each message is complete, also with padding between two."""
    first = nfnetlink.message(1, 0, 0, b"", 0)
    odd = struct.pack("=IHHII", 17, 3, 0, 0, 0) + b"x"
    assert list(nfnetlink.split(first + odd + bytes(3) + first)) == [first, odd, first]


@pytest.mark.parametrize("size", [0, 15, 200])
def test_a_length_that_cannot_be(size: int) -> None:
    """A message shorter than its header, or longer than the datagram, ends the walk."""
    assert list(nfnetlink.split(struct.pack("=IHHII", size, 3, 0, 0, 0))) == []


def test_attributes_lose_their_flags() -> None:
    """NLA_F_NESTED and byte-order flags are not part of the type, padding not of the value."""
    data = bytes(20) + attribute(8 | 0x8000, b"mark") + attribute(3, b"odd")
    assert list(nfnetlink.attributes(data)) == [(8, b"mark"), (3, b"odd")]


@given(st.binary(max_size=200))
def test_garbage_does_not_raise(data: bytes) -> None:
    """No bytes raise, and results lie within them."""
    assert sum(map(len, nfnetlink.split(data))) <= len(data)
    assert sum(len(value) for _, value in nfnetlink.attributes(data)) <= len(data)


@pytest.mark.root
def test_a_refusal_has_the_kernels_errno() -> None:
    """A refused request raises OSError with the kernel's errno."""
    with pytest.raises(OSError, match=r"\[Errno \d+\]"):
        list(nfnetlink.send_request(nfnetlink.message(10, 250, 2, b"", nfnetlink.NLM_F_ACK)))


@pytest.mark.root
def test_no_table_no_counters(inside: Namespace) -> None:
    """Without our table the counters are None, not zero."""
    assert nfnetlink.table_counters(4) is None


@pytest.mark.root
def test_whether_there_is_a_table(inside: Namespace) -> None:
    """By family and whole name; a table that is flushed away is gone."""
    inside.run(["nft", "add table ip6 paraglider-long"])
    assert nfnetlink.has_table(6, "paraglider-long")
    assert not nfnetlink.has_table(4, "paraglider-long")
    assert not nfnetlink.has_table(6, "paraglider")
    inside.run(["nft", "flush ruleset"])
    assert not nfnetlink.has_table(6, "paraglider-long")


@pytest.mark.root
@pytest.mark.parametrize(("family", "number"), [("ip", 4), ("ip6", 6)])
def test_what_backends_carried(inside: Namespace, family: str, number: int) -> None:
    """By mark and direction, for any number of backends; other counters are skipped, and without a
    table there are none.
    """
    assert nfnetlink.carried_counters(number) == {}
    place = f"{family} paraglider"
    lines = [f"add table {place}", f"add counter {place} gone {{ packets 1 bytes 1 }}"]
    lines.append(f"add counter {family} paraglider begun-51000001 {{ packets 1 bytes 1 }}")
    for mark in range(0x51000000, 0x51000000 + 700):
        for what, packets in (("requests", mark & 0xFFF), ("replies", 7)):
            counted = f"{{ packets {packets} bytes {1 << 40} }}"
            lines.append(f"add counter {place} {what}-{mark:08x} {counted}")
    inside.run(["nft", "-f", "-"], text="".join(f"{line}\n" for line in lines))
    assert nfnetlink.carried_counters(number) == {
        mark: {"requests": (mark & 0xFFF, 1 << 40), "replies": (7, 1 << 40)}
        for mark in range(0x51000000, 0x51000000 + 700)
    }
    assert nfnetlink.carried_counters(10 - number) == {}
