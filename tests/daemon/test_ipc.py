"""Tests of ``paraglider.daemon.ipc``: whole messages, bounds, requests, peers that misbehave."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from waiting import TIMEOUT

from paraglider.daemon.ipc import (
    MOST_REQUESTS,
    Answers,
    Broadcasts,
    EndpointClosedError,
    EndpointError,
    Frame,
    InvalidMessageError,
    IpcEndpoint,
    Kind,
    LoopEndpoint,
    encode,
)
from paraglider.daemon.messages import Message, Result, WriteCounters
from paraglider.errors import PlatformError

ANY = TypeAdapter(Result)


def pair() -> tuple[IpcEndpoint, IpcEndpoint]:
    """Two ends that receive results."""
    return IpcEndpoint.pair(ANY, ANY)


def raw(**bounds: int) -> tuple[socket.socket, IpcEndpoint]:
    """A bare socket, and the endpoint at its other end."""
    one, other = socket.socketpair()
    one.setblocking(False)
    return one, IpcEndpoint(other, ANY, **bounds)


def framed(message: Message, kind: Kind = Kind.MESSAGE, number: int = 0) -> bytes:
    """``message`` as it stands on the wire."""
    body = encode(message)
    return struct.pack("!IBI", len(body), kind, number) + body


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(st.tuples(VALUES, st.sampled_from(Kind), st.integers(0, 2**32 - 1)), max_size=5))
def test_messages_arrive_whole_and_in_order(sent: list[tuple[object, Kind, int]]) -> None:
    """With kinds, numbers and any content; encoded here or by the sender."""
    one, other = pair()
    for at, (value, kind, number) in enumerate(sent):
        message = Result(value=value)
        one.send(encode(message) if at % 2 else message, kind, number)
    assert other.receive() == [Frame(Result(value=v), k, n) for v, k, n in sent]
    one.close()
    other.close()


def test_pieces_make_a_message() -> None:
    """A message that comes byte by byte is received with its last byte, not before."""
    end, endpoint = raw()
    one, two = Result(value=1), Result(value=2)
    wire = framed(one) + framed(two, Kind.ANSWER, 3)
    at_last = {len(framed(one)) - 1: [Frame(one)], len(wire) - 1: [Frame(two, Kind.ANSWER, 3)]}
    for number in range(len(wire)):
        end.send(wire[number : number + 1])
        assert endpoint.receive() == at_last.get(number, [])


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack("!IBI", 3, 0, 0) + b"{}x",
        struct.pack("!IBI", 2, 0, 0) + b"{}",
        struct.pack("!IBI", 2, 0, 0) + b"\xff\xfe",
        framed(WriteCounters()),
        struct.pack("!IBI", 18, 0, 0) + b'{"type": "secret"}',
        framed(Result(value=1), Kind.MESSAGE)[:4] + b"\x09" + framed(Result(value=1))[5:],
    ],
)
def test_an_invalid_message(wire: bytes) -> None:
    """The error has no content; the owner then closes the endpoint."""
    end, endpoint = raw()
    end.sendall(wire)
    with pytest.raises(InvalidMessageError) as caught:
        endpoint.receive()
    assert "secret" not in str(caught.value)


def test_a_long_message_is_refused_by_its_header() -> None:
    """The announced length is enough: nothing of a too long message is waited for."""
    end, endpoint = raw(longest=100)
    end.send(struct.pack("!IBI", 101, 0, 0))
    with pytest.raises(InvalidMessageError, match="announced, too long"):
        endpoint.receive()
    with pytest.raises(EndpointError, match="too long"):
        endpoint.send(Result(value="x" * 100))


def fill(endpoint: IpcEndpoint, message: Message) -> int:
    """Send ``message`` until it is refused; how often it was not."""
    for sent in range(100):
        try:
            endpoint.send(message)
        except EndpointError as error:
            assert "does not read" in str(error)  # noqa: PT017 - the message before it is counted
            return sent
    raise AssertionError("nothing was refused")


def test_a_peer_that_does_not_read() -> None:
    """Sending never waits: unsent bytes are pending, up to the bound, and are sent later."""
    end, endpoint = raw(backlog=3_000_000)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    message = Result(value="x" * 1_000_000)
    sent = fill(endpoint, message)
    assert endpoint.pending
    assert sent >= 2
    received = bytearray()
    expected = framed(message) * sent
    while len(received) < len(expected):
        received += end.recv(1 << 20)
        endpoint.flush()
    assert received == expected
    assert not endpoint.pending


def test_a_peer_that_is_gone() -> None:
    """Messages before its end are received first; then both directions raise."""
    one, other = pair()
    one.send(Result(value="last"))
    one.close()
    assert other.receive() == [Frame(Result(value="last"))]
    with pytest.raises(EndpointClosedError, match="gone"):
        other.receive()
    with pytest.raises(EndpointClosedError, match="gone"):
        other.send(Result(value=1))


def test_nothing_there() -> None:
    """Receiving does not wait either."""
    one, other = pair()
    assert other.receive() == []
    one.close()


def on_loop(play: Callable[[IpcEndpoint, IpcEndpoint], Awaitable[None]]) -> None:
    """Run ``play`` with the supervisor's end and a process's."""

    async def main() -> None:
        ours, theirs = pair()
        async with asyncio.timeout(TIMEOUT):
            await play(ours, theirs)
        ours.close()
        theirs.close()

    asyncio.run(main())


async def received(endpoint: IpcEndpoint, count: int) -> list[Frame]:
    """The next ``count`` messages at ``endpoint``."""
    found: list[Frame] = []
    while len(found) < count:
        found += endpoint.receive()
        await asyncio.sleep(0)
    return found


def test_answers_find_their_requests() -> None:
    """In any order; an answer without a request is ignored, other messages are delivered."""

    async def play(supervisor: IpcEndpoint, theirs: IpcEndpoint) -> None:
        got: list[Message] = []
        end = LoopEndpoint(theirs, got.append)
        asked = [asyncio.create_task(end.request(Result(value=n), TIMEOUT)) for n in "ab"]
        first, second = await received(supervisor, 2)
        assert first.kind is second.kind is Kind.REQUEST
        supervisor.send(Result(value=0), Kind.ANSWER, 99)
        supervisor.send(Result(value="news"))
        supervisor.send(Result(value=2), Kind.ANSWER, second.number)
        supervisor.send(Result(value=1), Kind.ANSWER, first.number)
        assert await asyncio.gather(*asked) == [Result(value=1), Result(value=2)]
        assert got == [Result(value="news")]

    on_loop(play)


def test_no_answer() -> None:
    """The request raises an error at the deadline; a late answer is ignored."""

    async def play(supervisor: IpcEndpoint, theirs: IpcEndpoint) -> None:
        end = LoopEndpoint(theirs)
        with pytest.raises(PlatformError, match="does not answer"):
            await end.request(Result(value=1), 0.01)
        (frame,) = await received(supervisor, 1)
        supervisor.send(Result(value=2), Kind.ANSWER, frame.number)
        supervisor.close()
        assert await end.closed == 0

    on_loop(play)


@pytest.mark.parametrize("garbage", [False, True])
def test_the_end_of_the_supervisor(garbage: bool) -> None:
    """The process exits with 0; after an invalid message with the code of a fault."""

    async def play(supervisor: IpcEndpoint, theirs: IpcEndpoint) -> None:
        end = LoopEndpoint(theirs)
        if garbage:
            supervisor.send(WriteCounters())
        supervisor.close()
        assert await end.closed == (PlatformError.exit_code if garbage else 0)
        end.send(Result(value=1))  # nobody is there: nothing happens

    on_loop(play)


def test_more_than_there_is_room_for() -> None:
    """Messages wait for the supervisor to read, ``pending`` is true, and nothing is lost."""

    async def play(supervisor: IpcEndpoint, theirs: IpcEndpoint) -> None:
        end = LoopEndpoint(theirs)
        sent = [Result(value=[number, "x" * 10_000]) for number in range(100)]
        for message in sent:
            end.send(message)
        assert end.pending
        assert [frame.message for frame in await received(supervisor, 100)] == sent
        assert not end.pending
        end.finish(3)
        end.finish(0)
        assert await end.closed == 3
        end.detach()

    on_loop(play)


class Requested:
    """Broadcasts, and the messages to each process."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.ended: list[Answers] = []
        self.broadcasts = Broadcasts(self.send)

    def send(self, index: int, message: Message | bytes, number: int) -> None:
        """See ``SendRequest``."""
        assert message == encode(WriteCounters())
        self.sent.append((index, number))

    def request(self, *to: int, deadline: float = 10.0) -> int:
        """Send a request; returns its number."""
        self.broadcasts.request(to, WriteCounters(), deadline, self.ended.append)
        return self.sent[-1][1] if to else 0


def answer(value: object = None) -> Result:
    """An answer."""
    return Result(value=value)


def test_it_ends_when_all_have_answered() -> None:
    """With every answer, by the index of its process, and once."""
    it = Requested()
    number = it.request(2, 1)
    assert it.sent == [(1, number), (2, number)]
    it.broadcasts.on_answer(1, number, answer(10))
    assert it.ended == []
    it.broadcasts.on_answer(2, number, answer(20))
    assert it.ended == [{1: answer(10), 2: answer(20)}]
    it.broadcasts.on_answer(2, number, answer(30))
    assert len(it.ended) == 1


def test_no_process_to_ask() -> None:
    """The request ends at once, without answers."""
    it = Requested()
    it.request()
    assert it.ended == [{}]


def test_a_process_that_is_gone_is_not_waited_for() -> None:
    """The other answers are used."""
    it = Requested()
    number = it.request(1, 2)
    it.broadcasts.on_answer(1, number, answer())
    it.broadcasts.on_exit(2)
    assert it.ended == [{1: answer()}]


def test_a_process_that_is_silent_is_not_waited_for() -> None:
    """The request ends at the deadline; until then ``poll`` returns the remaining time."""
    it = Requested()
    number = it.request(1, 2, deadline=10.0)
    it.request(1, deadline=12.0)
    assert it.broadcasts.poll(4.0) == 6.0
    it.broadcasts.on_answer(2, number, answer())
    assert it.broadcasts.poll(10.0) == 2.0
    assert it.ended == [{2: answer()}]
    it.broadcasts.poll(12.0)
    assert it.ended == [{2: answer()}, {}]
    assert it.broadcasts.poll(13.0) > 60


def test_an_answer_to_nothing_is_ignored() -> None:
    """Nor can a process answer for another one."""
    it = Requested()
    number = it.request(1)
    it.broadcasts.on_answer(1, number + 1, answer())
    it.broadcasts.on_answer(7, number, answer())
    assert it.ended == []


def test_too_many_requests() -> None:
    """The bound applies to open requests."""
    it = Requested()
    numbers = [it.request(1) for _ in range(MOST_REQUESTS)]
    with pytest.raises(PlatformError, match="too many requests"):
        it.request(1)
    it.broadcasts.on_answer(1, numbers[0], answer())
    it.request(1)
    assert len(it.ended) == 1


def test_the_end_of_a_request_may_send_the_next() -> None:
    """``done`` may send a request while others are being ended."""
    it = Requested()

    def again(_answers: Answers) -> None:
        it.request(1, deadline=50.0)

    for _ in range(2):
        it.broadcasts.request([1], WriteCounters(), 5.0, again)
    assert it.broadcasts.poll(5.0) == 45.0
    it.broadcasts.on_exit(1)
    assert it.ended == [{}, {}]
