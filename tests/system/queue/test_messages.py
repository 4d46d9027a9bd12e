"""The bytes of nfnetlink_queue's messages, taken apart by an independent reading of the layout."""

from __future__ import annotations

import struct

import pytest

from paraglider.system.queue import messages


@pytest.mark.parametrize("size", range(9))
def test_attributes_are_padded_to_four_bytes(size: int) -> None:
    """The length field counts header and payload; zeroes fill up to the next multiple of four."""
    data = bytes(range(1, size + 1))
    made = messages.attribute(10, data)
    assert len(made) % 4 == 0
    assert struct.unpack_from("=HH", made) == (4 + size, 10)
    assert made[4 : 4 + size] == data
    assert made[4 + size :] == bytes(-size % 4)


def test_a_message_tells_its_own_length() -> None:
    """The header is that of netlink: length of all, subsystem and kind, request, no sequence."""
    made = messages.message(messages.NFQNL_MSG_CONFIG, 5, b"\x08\x00\x01\x00abcd")
    length, kind, flags, sequence, port = struct.unpack_from("=IHHII", made)
    assert length == len(made) == 28
    assert (kind, flags, sequence, port) == (0x0302, 1, 0, 0)
    assert made.endswith(b"abcd")


def test_the_queue_is_in_network_order() -> None:
    """The queue's number is the only part of the second header in network order."""
    made = messages.message(messages.NFQNL_MSG_CONFIG, 0x1234, b"")
    assert made[16:20] == b"\x00\x00\x12\x34"


def test_copy_packet_asks_for_a_length() -> None:
    """The parameters are the range in network order and the mode 2, copy the packet."""
    made = messages.copy_packet(1, 65531)
    assert struct.unpack_from("=HH", made, 20) == (9, 2)
    assert made[24:29] == b"\x00\x00\xff\xfb\x02"
    assert len(made) == 32
