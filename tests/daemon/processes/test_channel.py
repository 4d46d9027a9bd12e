"""Tests of ``paraglider.daemon.processes.channel``.

Whole messages, bounds, and an end that misbehaves.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.daemon.processes.channel import (
    DEEPEST,
    Channel,
    ChannelClosedError,
    ChannelError,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def framed(body: bytes) -> bytes:
    """``body`` as it stands on the wire."""
    return struct.pack("!I", len(body)) + body


def raw(**bounds: int) -> tuple[socket.socket, Channel]:
    """A bare socket, and the channel at its other end."""
    one, other = socket.socketpair()
    one.setblocking(False)
    return one, Channel(other, **bounds)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=5))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, Any]]) -> None:
    """What is sent at one end comes out at the other, in order, whatever it holds."""
    one, other = Channel.pair()
    for message in messages:
        one.send(message)
    assert other.receive() == messages
    one.close()
    other.close()


def test_pieces_make_a_message() -> None:
    """A message that comes byte by byte is given when its last byte is there, not before."""
    end, channel = raw()
    wire = framed(b'{"a": 1}') + framed(b"{}")
    for number in range(len(wire)):
        end.send(wire[number : number + 1])
        got = channel.receive()
        assert got == {11: [{"a": 1}], len(wire) - 1: [{}]}.get(number, [])


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"a": 1} {}'),
        *(
            b'{"a": NaN}',
            b'{"a": -Infinity}',
            b'{"a": 1e999}',
            b'{"a": 18446744073709551616}',
            b'{"a": -9223372036854775809}',
        ),
        *(b'{"a": "\\ud800"}', b'{"a": "\\uDC00x"}'),
    ],
)
def test_garbage_is_refused(body: bytes) -> None:
    """What is no JSON object raises the error that the owner closes the channel for."""
    end, channel = raw()
    end.setblocking(True)
    end.sendall(framed(body))
    with pytest.raises(ChannelError, match="what came is no JSON"):
        channel.receive()


def test_what_is_nested_too_deep_is_refused() -> None:
    """Nobody who handles a message meets the bounds of Python's stack."""
    end, channel = raw()
    end.sendall(framed(b'{"a":' * DEEPEST + b"[]" + b"}" * DEEPEST))
    with pytest.raises(ChannelError, match="nested"):
        channel.receive()
    end, channel = raw()
    end.sendall(framed(b'{"a":' * (DEEPEST - 1) + b"[]" + b"}" * (DEEPEST - 1)))
    end.sendall(framed(b'{"pair": "\\ud83e\\ude82"}'))
    assert channel.receive()[1:] == [{"pair": "\U0001fa82"}]


def test_a_long_message_is_refused_by_its_head() -> None:
    """The announced length is enough: nothing of a too long message is waited for."""
    end, channel = raw(longest=100)
    end.send(struct.pack("!I", 101))
    with pytest.raises(ChannelError, match="announced, which is too long"):
        channel.receive()
    with pytest.raises(ChannelError, match="too long"):
        channel.send({"a": "x" * 100})


def fill(channel: Channel, message: dict[str, Any]) -> int:
    """Send ``message`` until it is refused; how often it was not."""
    for sent in range(100):
        try:
            channel.send(message)
        except ChannelError as error:
            assert "does not read" in str(error)  # noqa: PT017 - the message before it is counted
            return sent
    raise AssertionError("nothing was refused")


def test_nobody_reads() -> None:
    """Sending never waits: what has no room is kept, up to the bound, and goes out later."""
    end, channel = raw(backlog=3_000_000)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    message = {"a": "x" * 1_000_000}
    sent = fill(channel, message)
    assert channel.waiting
    assert sent >= 2
    received = bytearray()
    expected = framed(json.dumps(message, separators=(",", ":")).encode()) * sent
    while len(received) < len(expected):
        received += end.recv(1 << 20)
        channel.flush()
    assert received == expected
    assert not channel.waiting


def test_the_other_end_is_gone() -> None:
    """What came before the end is given first; then the end is told, for both directions."""
    one, other = Channel.pair()
    one.send({"last": "words"})
    one.close()
    assert other.receive() == [{"last": "words"}]
    with pytest.raises(ChannelClosedError, match="gone"):
        other.receive()
    with pytest.raises(ChannelClosedError, match="gone"):
        other.send({})


def test_nothing_there() -> None:
    """Receiving does not wait either."""
    one, other = Channel.pair()
    assert other.receive() == []
    one.close()
