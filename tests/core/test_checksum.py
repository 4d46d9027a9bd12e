"""The checksum arithmetic against a loop that reads like RFC 1071, and against recomputation."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.checksum import delta, internet_checksum, ones_sum, update


def naive_sum(data: bytes, initial: int = 0) -> int:
    """RFC 1071 §4.1, word by word: the folded sum, 0 to 0xffff."""
    total = initial
    for at in range(0, len(data), 2):
        total += data[at] << 8 | (data[at + 1] if at + 1 < len(data) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def naive_checksum(data: bytes, initial: int = 0) -> int:
    """The complement of the sum."""
    return ~naive_sum(data, initial) & 0xFFFF


even = st.binary(max_size=40).map(lambda data: data + data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7", 0xDDF2),  # the example of RFC 1071 §3
        (b"\x12\x34", 0x1234),
        (b"\x12", 0x1200),
        (b"\x12\x34\x56", 0x1234 + 0x5600),
        (b"\xff\xff", 0),
    ],
)
def test_sums_known_words(data: bytes, expected: int) -> None:
    """Sums that can be checked by hand, an odd last byte being the high half of a word."""
    assert ones_sum(data) == expected


@MANY
@given(st.binary(max_size=2000))
def test_sum_is_that_of_rfc_1071(data: bytes) -> None:
    """The sum equals the naive loop's, where 0 and 0xffff are the same number."""
    assert ones_sum(data) == naive_sum(data) % 65535


@MANY
@given(st.binary(max_size=200))
def test_sum_takes_any_buffer(data: bytes) -> None:
    """bytes, bytearray and memoryview sum alike."""
    assert ones_sum(data) == ones_sum(bytearray(data)) == ones_sum(memoryview(data))


@MANY
@given(st.binary(max_size=300), st.integers(0, 65534))
def test_checksum_is_that_of_rfc_1071(data: bytes, initial: int) -> None:
    """The checksum of data with an initial sum equals the naive one."""
    assert internet_checksum(data, initial) == naive_checksum(data, initial)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(20)])
def test_checksum_of_zeros_is_all_ones(data: bytes) -> None:
    """Only data of zeros has the checksum 0xffff."""
    assert internet_checksum(data) == naive_checksum(data) == 0xFFFF


@MANY
@given(even, even, st.data())
def test_update_equals_recomputation(head: bytes, tail: bytes, data: st.DataObject) -> None:
    """A slice replaced and the delta added gives the checksum of the new data (RFC 1624)."""
    size = 2 * data.draw(st.integers(1, 18))
    old, new = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    assume(any(head + tail))  # a header is never all zeros
    before, after = naive_checksum(head + old + tail), naive_checksum(head + new + tail)
    assert update(before, delta(old, new)) == after


@MANY
@given(st.integers(0, 0xFFFF), st.integers(0, 65534), st.integers(1, 65534))
def test_update_keeps_a_wrong_checksum_as_wrong(right: int, change: int, error: int) -> None:
    """The error of a wrong checksum stays the same, so the receiver detects it."""
    assert (update(right + error, change) - update(right, change)) % 65535 == error


@MANY
@given(st.integers(0, 65534), st.integers(0, 65534))
def test_update_and_back_changes_nothing(checksum: int, change: int) -> None:
    """The delta of the way back undoes that of the way out."""
    assert update(update(checksum, change), -change) == checksum


def test_update_of_rfc_1624_section_4() -> None:
    """The example on which equation 2 fails: 0xdd2f becomes 0x0000, not 0xffff."""
    assert update(0xDD2F, delta(b"\x55\x55", b"\x32\x85")) == 0x0000
