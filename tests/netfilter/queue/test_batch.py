"""Rounds of packets and verdicts, over a socket pair in place of the kernel's; in both builds."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.core.checksum import COMPLETE, KERNELS, UNFINISHED
from paraglider.netfilter.nfnetlink import attribute
from paraglider.netfilter.queue import messages
from paraglider.netfilter.queue.batch import FLUSH, ROUND, SLOT, Batch, open_batch

QUEUE = 5
Pair = tuple[Any, socket.socket]

KINDS: dict[str, Callable[[socket.socket, int], Any]] = {"interpreted": Batch, "chosen": open_batch}


@pytest.fixture(params=sorted(KINDS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A batch, interpreted or as the build has it, and the other end of its socket."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        for sock in (ours, kernel):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
        kernel.settimeout(TIMEOUT)
        yield KINDS[request.param](ours, QUEUE), kernel


def packet_message(
    number: int, payload: bytes, *, hook: int = 0, info: int | None = None, mark: bool = True
) -> bytes:
    """A message as the kernel sends it: the attributes in its order, the payload last."""
    attributes = attribute(1, struct.pack("!IHB", number, 0x0800, hook))
    attributes += attribute(5, struct.pack("!I", 2))
    if mark:
        attributes += attribute(3, struct.pack("!I", 0x50470000))
    if info is not None:
        attributes += attribute(messages.NFQA_SKB_INFO, struct.pack("!I", info))
    if payload:
        attributes += attribute(messages.NFQA_PAYLOAD, payload)[: 4 + len(payload)]
    return messages.message(messages.NFQNL_MSG_PACKET, QUEUE, attributes)


def packet_of(batch: Any) -> bytes:
    """The packet that ``open`` found."""
    return bytes(batch.arena[batch.payload : batch.payload + batch.length])


def verdicts(data: bytes) -> list[tuple[int, int, bytes | None, int | None]]:
    """Verdict, packet id, payload and mark of each message in ``data``."""
    found = []
    while data:
        length, kind = struct.unpack_from("=IH", data)
        assert kind == 0x0301
        assert length % 4 == 0
        at, verdict, number, payload, mark = 20, -1, -1, None, None
        while at < length:
            size, attribute = struct.unpack_from("=HH", data, at)
            value = data[at + 4 : at + size]
            if attribute == messages.NFQA_VERDICT_HDR:
                verdict, number = struct.unpack("!II", value)
            elif attribute == messages.NFQA_PAYLOAD:
                payload = value
            elif attribute == messages.NFQA_MARK:
                (mark,) = struct.unpack("!I", value)
            at += (size + 3) & ~3
        found.append((verdict, number, payload, mark))
        data = data[length:]
    return found


def receive(batch: Any, count: int) -> int:
    """Rounds until ``count`` messages came; how many the last brought. Each must be all read."""
    got = batch.receive(ROUND)
    assert got <= count
    return int(got)


def test_nothing_comes(pair: Pair) -> None:
    """A round without a message is 0, not an error, and waits for nothing."""
    batch, _ = pair
    assert batch.receive(ROUND) == 0


@pytest.mark.parametrize(
    ("info", "state"),
    [(None, COMPLETE), (1, UNFINISHED), (2, KERNELS), (3, KERNELS), (4, COMPLETE), (5, UNFINISHED)],
)
def test_a_packet_and_its_checksum(pair: Pair, info: int | None, state: int) -> None:
    """The whole packet is found, with the checksum state of NFQA_SKB_INFO; COMPLETE without it."""
    batch, kernel = pair
    kernel.send(packet_message(7, b"a packet of 21 bytes.", info=info))
    assert batch.receive(ROUND) == 1
    assert batch.open(0)
    assert (packet_of(batch), batch.checksum) == (b"a packet of 21 bytes.", state)


def test_attributes_that_change(pair: Pair) -> None:
    """Messages of one hook with other attributes, longer or shorter, are found like the first."""
    batch, kernel = pair
    shapes = [(None, True), (1, True), (None, False), (3, False), (1, True)]
    for number, (info, mark) in enumerate(shapes):
        kernel.send(packet_message(number, b"x" * (20 + number), info=info, mark=mark))
        assert batch.receive(ROUND) == 1
        assert batch.open(0)
        assert packet_of(batch) == b"x" * (20 + number)
        assert batch.checksum == {None: COMPLETE, 1: UNFINISHED, 3: KERNELS}[info]


def test_a_message_without_payload(pair: Pair) -> None:
    """A packet message that carries no bytes is an empty packet, and gets its verdict."""
    batch, kernel = pair
    kernel.send(packet_message(9, b""))
    assert batch.receive(ROUND) == 1
    assert batch.open(0)
    assert batch.length == 0
    batch.dropped()
    batch.flush()
    assert verdicts(kernel.recv(4096)) == [(0, 9, None, None)]


def test_verdicts_of_every_kind(pair: Pair) -> None:
    """Rewritten, marked and dropped packets go back with their ids, in order, in one message."""
    batch, kernel = pair
    packets = [b"rewrite me", b"mark me", b"drop me", b"and me, odd"]
    for number, packet in enumerate(packets):
        kernel.send(packet_message(number + 256, packet))
    seen = 0
    while seen < len(packets):
        for index in range(batch.receive(ROUND)):
            assert batch.open(index)
            assert packet_of(batch) == packets[seen]
            if seen in (0, 3):
                batch.arena[batch.payload] = ord("R")
                batch.rewritten()
            elif seen == 1:
                batch.marked(0x51ABCDEF)
            else:
                batch.dropped()
            seen += 1
        batch.flush()
    answer = b""
    while len(verdicts(answer)) < len(packets):
        answer += kernel.recv(1 << 20)
    assert verdicts(answer) == [
        (1, 256, b"Rewrite me", None),
        (1, 257, None, 0x51ABCDEF),
        (0, 258, None, None),
        (1, 259, b"Rnd me, odd", None),
    ]


def test_a_round_is_bounded(pair: Pair) -> None:
    """More messages than a round has slots come in several; none is lost or mixed up."""
    batch, kernel = pair
    kernel.settimeout(None)
    total = ROUND + 7
    for number in range(total):
        kernel.send(packet_message(number, struct.pack("!I", number) * 6))
    seen = 0
    while seen < total:
        count = batch.receive(ROUND)
        assert 0 < count <= ROUND
        for index in range(count):
            assert batch.open(index)
            assert packet_of(batch) == struct.pack("!I", seen) * 6
            batch.rewritten()
            seen += 1
        batch.flush()
    answer = b""
    while len(verdicts(answer)) < total:
        answer += kernel.recv(1 << 21)
    assert [number for _, number, _, _ in verdicts(answer)] == list(range(total))


def test_long_packets_are_sent_before_the_round_ends(pair: Pair) -> None:
    """Verdicts of more than FLUSH bytes go in several messages, whole ones each."""
    batch, kernel = pair
    size = 60_001
    count = FLUSH // size + 2
    answers = []
    for number in range(count):
        kernel.send(packet_message(number, bytes([number]) * size))
        batch.receive(ROUND)
        assert batch.open(0)
        assert batch.length == size
        batch.rewritten()
        batch.flush()
        answers += verdicts(kernel.recv(1 << 21))
    assert [(v, n, p) for v, n, p, _ in answers] == [
        (1, n, bytes([n]) * size) for n in range(count)
    ]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_answers_are_counted(pair: Pair, code: int) -> None:
    """A refused verdict is no packet, and counts; an acknowledgement does not count."""
    batch, kernel = pair
    kernel.send(struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -code) + bytes(16))
    assert batch.receive(ROUND) == 1
    assert not batch.open(0)
    assert batch.refused == (code != 0)


@pytest.mark.parametrize("junk", [b"\0" * 4, b"\xff" * 24, bytes(range(64))])
def test_junk_is_no_packet(pair: Pair, junk: bytes) -> None:
    """Other messages are skipped."""
    batch, kernel = pair
    kernel.send(junk)
    assert batch.receive(ROUND) == 1
    assert not batch.open(0)
    assert batch.refused == 0


def test_a_message_from_before(pair: Pair) -> None:
    """A message that was received while the queue was bound is served from slot 0."""
    batch, kernel = pair
    batch.load(packet_message(3, b"early"))
    assert batch.open(0)
    assert packet_of(batch) == b"early"
    batch.marked(0)
    batch.flush()
    assert verdicts(kernel.recv(4096)) == [(1, 3, None, 0)]


def test_a_closed_socket_is_an_error() -> None:
    """An error of the socket other than time-out is raised, not taken for silence."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel.close()
    batch = open_batch(ours, QUEUE)
    ours.close()
    with pytest.raises(OSError, match=r"\[Errno"):
        batch.receive(ROUND)


def test_slots_hold_any_packet() -> None:
    """A slot has room for the longest packet and its attributes, and keeps alignment."""
    assert SLOT > 65535 + 1024
    assert SLOT % 4 == 0
