"""The bytes of nfnetlink_queue's messages, taken apart by an independent reading of the layout."""

from __future__ import annotations

import struct

import pytest

from paraglider.netfilter.nfnetlink import attribute
from paraglider.netfilter.queue import messages


def test_a_message_has_its_length() -> None:
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


def test_configure_asks_for_a_length_and_flags() -> None:
    """The range in network order and mode 2 (copy the packet); flags and their mask."""
    made = messages.configure(1, 65531, messages.NFQA_CFG_F_FAIL_OPEN)
    assert struct.unpack_from("=HH", made, 20) == (9, 2)
    assert made[24:29] == b"\x00\x00\xff\xfb\x02"
    assert (
        made[32:] == struct.pack("=HH", 8, 5) + b"\0\0\0\1" + struct.pack("=HH", 8, 4) + b"\0\0\0\5"
    )


def test_bind_settles_in_one_message() -> None:
    """Command, length, copy mode and flags are in one message, with an
    acknowledgement requested.
    """
    made = messages.bind(3, 60000, 128, messages.NFQA_CFG_F_GSO)
    assert struct.unpack_from("=IHHII", made) == (len(made), 0x0302, 5, 0, 0)
    kinds, at = [], 20
    while at < len(made):
        size, kind = struct.unpack_from("=HH", made, at)
        kinds.append(kind)
        at += (size + 3) & ~3
    assert kinds == [1, 3, 2, 5, 4]
    assert struct.pack("!I", 60000) in made


@pytest.mark.parametrize("code", [0, 1, 16])
def test_answers_carry_an_errno(code: int) -> None:
    """NLMSG_ERROR has the negated errno behind the header; 0 acknowledges."""
    made = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -code) + bytes(16)
    assert messages.answer(made) == code


def test_other_messages_are_no_answer() -> None:
    """A packet or a truncated message is not taken for an answer."""
    assert messages.answer(messages.message(messages.NFQNL_MSG_PACKET, 1, bytes(8))) == -1
    assert messages.answer(b"\x24\0\0\0\2\0") == -1


def test_the_payload_is_found() -> None:
    """The payload is found behind any attributes."""
    before = attribute(1, bytes(7)) + attribute(14, bytes(4))
    made = bytearray(messages.message(0, 1, before + attribute(10, b"packet")))
    at = messages.payload_at(made, 0, len(made))
    assert made[at : at + 6] == b"packet"
    empty = bytearray(messages.message(0, 1, before))
    assert messages.payload_at(empty, 0, len(empty)) == len(empty)


def test_the_head_of_a_verdict() -> None:
    """A verdict in place spells the same bytes as one built attribute by attribute."""
    packet_id, packet = b"\0\0\1\2", b"12345678"
    built = messages.message(
        messages.NFQNL_MSG_VERDICT,
        4,
        attribute(2, struct.pack("!I", 1) + packet_id) + attribute(10, packet),
    )
    buf = bytearray(messages.VERDICT_HEAD) + packet
    constant = messages.verdict_constant(4, messages.NF_ACCEPT)
    messages.write_verdict(buf, 0, len(buf), constant, packet_id, 4 + len(packet), 10)
    assert buf == built


def test_bare_verdicts() -> None:
    """A verdict without a packet has a mark only where one is given."""
    marked = messages.bare_verdict(4, messages.NF_ACCEPT, b"\0\0\1\2", 0x50470001)
    assert marked.endswith(struct.pack("=HH", 8, 3) + b"\x50\x47\x00\x01")
    assert len(messages.bare_verdict(4, messages.NF_DROP, b"\0\0\1\2", None)) == len(marked) - 8
