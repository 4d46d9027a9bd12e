"""The conformance suite of ``base.Queue``, for every queue I/O.

Each test runs on every entry of ``QUEUES``, over IPv4 and IPv6. A handler here, as the packet path
does, leaves a complete checksum unless the kernel computes it.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import threading
import time
from typing import Any

import pytest
from waiting import wait_until

from paraglider.config.model import Config
from paraglider.core.checksum import COMPLETE, KERNELS
from paraglider.core.verdict import DROP, MARK, PASS, REWRITTEN
from paraglider.errors import OperatorError
from paraglider.forward import worker_datapath
from paraglider.netfilter.queue import QueueReader, open_queue
from paraglider.netfilter.queue.base import LONGEST_PACKET
from paraglider.netfilter.queue.proc import queue_status
from paraglider.netfilter.queue.reader import TICK

pytestmark = pytest.mark.root

NUMBER = 7
WORKER_MARK = 0x50470000
PORT = 5353
# Bytes of UDP payload: none, one, a full Ethernet frame, and lengths around the buffers of
# libnetfilter_queue's binding (4,016 bytes copied, 4,096 read), the 8,000, and long ones.
SIZES = (0, 1, 1472, 3988, 3989, 4040, 4068, 8000, 20_000, 60_000)


def transport_at(buf: bytearray, offset: int) -> int:
    """The offset of the transport header of a packet without options."""
    return offset + (20 if buf[offset] >> 4 == 4 else 40)


def payload(buf: bytearray, offset: int, length: int) -> bytes:
    """The payload of the UDP packet."""
    return bytes(buf[transport_at(buf, offset) + 8 : offset + length])


def finish_udp(buf: bytearray, offset: int, length: int, checksum: int) -> None:
    """Make the checksum right after a change, by scapy, unless the kernel is to compute it."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    if checksum == KERNELS:
        return
    packet: Any = (IP if buf[offset] >> 4 == 4 else IPv6)(bytes(buf[offset : offset + length]))
    del packet["UDP"].chksum
    buf[offset : offset + length] = bytes(packet)


def always(value: int) -> Any:
    """A handler with one verdict for everything."""

    def handle(_buf: bytearray, _at: int, _length: int, _checksum: int, _now: float) -> int:
        return value

    return handle


def upper(buf: bytearray, offset: int, length: int, checksum: int, _now: float) -> int:
    """Rewrites the payload of a UDP packet to upper case."""
    at = transport_at(buf, offset) + 8
    buf[at : offset + length] = bytes(buf[at : offset + length]).upper()
    finish_udp(buf, offset, length, checksum)
    return REWRITTEN


def by_text(verdicts: dict[bytes, Any]) -> Any:
    """A handler whose verdict is looked up by payload; an exception in the table is raised."""

    def handle(buf: bytearray, offset: int, length: int, _checksum: int, _now: float) -> int:
        found = verdicts.get(payload(buf, offset, length), PASS)
        if isinstance(found, Exception):
            raise found
        return int(found)

    return handle


def test_pass_clears_the_mark(serve: Any, mouth: Any) -> None:
    """A packet that is not ours goes on as it came, but without the mark of the worker."""
    serve(always(PASS))
    mouth.send(b"not ours")
    assert mouth.receive() == (b"not ours", 0)


def test_rewritten_keeps_the_mark(serve: Any, mouth: Any) -> None:
    """A rewritten packet goes on changed, and keeps the mark that lets it through the filter."""
    serve(upper)
    mouth.send(b"rewrite me")
    assert mouth.receive() == (b"REWRITE ME", WORKER_MARK)


def test_drop(serve: Any, mouth: Any) -> None:
    """A dropped packet does not arrive; the next one does."""
    serve(by_text({b"bad": DROP}))
    mouth.send(b"bad")
    mouth.send(b"good")
    assert mouth.receive() == (b"good", 0)
    assert mouth.silent()


@pytest.mark.parametrize("mark", [1, 0x1234, 0xFFFFFFFF])
def test_mark(serve: Any, mouth: Any, mark: int) -> None:
    """A marked packet goes on as it came, with the verdict's mark in place of the worker's."""
    serve(always(mark << 8 | MARK))
    mouth.send(b"marked")
    assert mouth.receive() == (b"marked", mark)


def test_the_handler_sees_the_whole_packet(serve: Any, mouth: Any) -> None:
    """The handler gets the IP packet from its first byte to its last, and a running clock."""
    seen: list[tuple[bytes, float]] = []

    def handle(buf: bytearray, offset: int, length: int, _checksum: int, now: float) -> int:
        seen.append((bytes(buf[offset : offset + length]), now))
        return PASS

    before = time.monotonic()
    serve(handle)
    mouth.send(b"look at me")
    mouth.receive()
    ((packet, now),) = seen
    size = 4 if mouth.family == 4 else 16
    source = 12 if mouth.family == 4 else 8
    kind = socket.AF_INET if mouth.family == 4 else socket.AF_INET6
    assert packet[0] >> 4 == mouth.family
    assert socket.inet_ntop(kind, packet[source : source + size]) == mouth.client
    assert socket.inet_ntop(kind, packet[source + size : source + 2 * size]) == mouth.target
    assert packet.endswith(b"look at me")
    assert before <= now <= time.monotonic()


def test_checksums_of_untouched_packets(serve: Any, mouth: Any) -> None:
    """If the handler gets the checksum state COMPLETE, scapy finds the checksum correct."""
    wrong: list[bytes] = []

    def handle(buf: bytearray, offset: int, length: int, checksum: int, _now: float) -> int:
        before = bytes(buf[offset : offset + length])
        if checksum == COMPLETE:
            finish_udp(buf, offset, length, checksum)
            if bytes(buf[offset : offset + length]) != before:
                wrong.append(before)
        return PASS

    serve(handle)
    for text in (b"even", b"odd", b"x" * 3000):
        mouth.send(text)
        mouth.receive()
    assert not wrong


@pytest.mark.parametrize("size", SIZES)
def test_any_length_passes(serve: Any, mouth: Any, size: int) -> None:
    """A packet of any length is seen whole and goes on whole."""
    lengths: list[int] = []

    def handle(_buf: bytearray, _offset: int, length: int, _checksum: int, _now: float) -> int:
        lengths.append(length)
        return PASS

    serve(handle)
    data = random.Random(size).randbytes(size)
    mouth.send(data)
    assert mouth.receive() == (data, 0)
    assert lengths == [size + 8 + (20 if mouth.family == 4 else 40)]


@pytest.mark.parametrize("size", SIZES)
def test_any_length_is_rewritten(serve: Any, mouth: Any, size: int) -> None:
    """A rewritten packet of any length arrives whole, every byte of it changed."""
    serve(upper)
    mouth.send(b"a" * size)
    assert mouth.receive() == (b"A" * size, WORKER_MARK)


def test_longer_than_netlink_carries(serve: Any, mouth: Any) -> None:
    """A packet too long for a netlink attribute arrives cut; passed, it goes on whole."""
    lengths: list[int] = []

    def handle(_buf: bytearray, _offset: int, length: int, _checksum: int, _now: float) -> int:
        lengths.append(length)
        return PASS

    serve(handle)
    longest = 65_535 - 28 if mouth.family == 4 else 65_535 - 48
    data = random.Random(1).randbytes(longest)
    mouth.send(data)
    assert mouth.receive() == (data, 0)
    assert lengths == [min(longest + (28 if mouth.family == 4 else 48), LONGEST_PACKET)]


def test_a_handler_that_raises(serve: Any, mouth: Any) -> None:
    """Its packet is dropped and counted, the first fault is kept, the next packet is fine."""
    first, second = ValueError("first"), KeyError("second")
    running = serve(by_text({b"one": first, b"two": second}))
    for text in (b"one", b"two", b"three"):
        mouth.send(text)
    assert mouth.receive()[0] == b"three"
    assert mouth.silent()
    running.settle()
    assert running.queue.faults == 2
    assert running.queue.first_fault is first


def test_a_busy_queue(serve: Any, mouth: Any) -> None:
    """Thousands of packets from several senders: each gets its verdict, and tick is called."""
    handled = [0]

    def handle(*_: Any) -> int:
        handled[0] += 1
        return DROP if handled[0] % 2 else PASS

    running = serve(handle)

    def shout() -> None:
        kind = socket.AF_INET if mouth.family == 4 else socket.AF_INET6
        with socket.socket(kind, socket.SOCK_DGRAM) as sock:
            sock.connect((mouth.target, PORT))
            for _ in range(1500):
                sock.send(b"x" * 200)

    threads = [threading.Thread(target=shout) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.settle()
    wait_until(lambda: handled[0] == 6000, lambda: handled)
    assert running.queue.faults == 0
    assert running.queue.drops.overruns == 0
    assert running.status.queue_dropped == running.status.user_dropped == 0
    assert running.ticks


def test_tick_under_constant_load(serve: Any, mouth: Any) -> None:
    """A queue that is never empty does not keep tick from being called, nor stop from ending."""
    kind = socket.AF_INET if mouth.family == 4 else socket.AF_INET6
    ended = threading.Event()
    handled = [0]

    def shout() -> None:
        with socket.socket(kind, socket.SOCK_DGRAM) as sock:
            sock.connect((mouth.target, PORT))
            while not ended.is_set():
                sock.send(b"again")

    def handle(*_: Any) -> int:
        handled[0] += 1
        return DROP

    running = serve(handle)
    thread = threading.Thread(target=shout)
    thread.start()
    try:
        wait_until(lambda: len(running.ticks) >= 5)
        running.stop()
    finally:
        ended.set()
        thread.join()
    assert handled[0] > len(running.ticks)


def test_tick_when_idle(serve: Any, mouth: Any) -> None:
    """tick is called without packets too, with increasing times, at most at its rate."""
    running = serve(always(PASS))
    wait_until(lambda: len(running.ticks) >= 4)
    running.stop()
    gaps = [b - a for a, b in zip(running.ticks, running.ticks[1:], strict=False)]
    assert all(gap >= TICK * 0.9 for gap in gaps)


def test_stop_before_serve(io: str) -> None:
    """A queue that was stopped before it was served ends at once."""
    reader = QueueReader([open_queue(io, NUMBER, 100)])
    try:
        reader.stop()
        reader.serve(always(PASS), lambda _now: None)
    finally:
        reader.close()


def test_stop_from_a_signal_handler(io: str) -> None:
    """A signal handler may stop the queue that the main thread serves."""
    reader = QueueReader([open_queue(io, NUMBER, 100)])
    before = signal.signal(signal.SIGUSR1, lambda *_: reader.stop())
    ticks = 0

    def tick(_now: float) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            os.kill(os.getpid(), signal.SIGUSR1)

    try:
        reader.serve(always(PASS), tick)
    finally:
        signal.signal(signal.SIGUSR1, before)
        reader.close()
    assert ticks == 3


def test_close_unbinds(io: str) -> None:
    """A closed queue is the kernel's no more, and can be opened again."""
    for _ in range(3):
        queue = open_queue(io, NUMBER, 100)
        assert NUMBER in queue_status()
        queue.close()
        assert NUMBER not in queue_status()


def test_close_drops_what_waits(io: str, mouth: Any) -> None:
    """Packets that wait when the queue is closed are dropped, not passed."""
    queue = open_queue(io, NUMBER, 100)
    mouth.send(b"waits")
    wait_until(lambda: queue_status()[NUMBER].waiting == 1)
    queue.close()
    assert mouth.silent()


def test_a_second_reader_is_refused(io: str, serve: Any, mouth: Any) -> None:
    """Opening a queue that has a reader raises an error that names the process; the first reader
    continues.
    """
    # A process's second netlink socket has a port of chance: those of tests before must be gone.
    gc.collect()
    serve(always(PASS))
    with pytest.raises(OperatorError, match=rf"queue {NUMBER} .* process {os.getpid()} \("):
        open_queue(io, NUMBER, 100)
    mouth.send(b"still served")
    assert mouth.receive()[0] == b"still served"


def test_length_bounds_the_queue(io: str, mouth: Any) -> None:
    """Packets beyond the queue's length are dropped and counted."""
    queue = open_queue(io, NUMBER, 10)
    try:
        for _ in range(50):
            mouth.send(b"waits")
        wait_until(lambda: queue_status()[NUMBER].queue_dropped == 40)
        assert queue_status()[NUMBER].waiting == 10
    finally:
        queue.close()


def test_an_overrun_socket(io: str, serve: Any, mouth: Any) -> None:
    """An overflow of the reader's socket is counted, and reading continues."""
    gate = threading.Event()

    def handle(*_: Any) -> int:
        assert gate.wait(30)
        return PASS

    running = serve(handle)
    while not running.status.user_dropped:
        mouth.send(bytes(60_000))
    gate.set()
    running.settle()
    running.queue.drops.refresh()
    assert running.queue.drops.overruns == running.status.user_dropped
    assert running.queue.faults == 0
    while not mouth.silent():
        mouth.receive()
    mouth.send(b"after the flood")
    while (received := mouth.receive()[0]) != b"after the flood":
        assert received == bytes(60_000)


def test_garbage_through_the_packet_path(serve: Any, mouth: Any) -> None:
    """Cut, odd and hostile packets each get a verdict from the real packet path; none raises."""
    backend = mouth.target.replace("2", "3")
    path = worker_datapath.build(service_config(mouth.target, backend), 0, time.monotonic())
    running = serve(path.handle)
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("lo", 0))
        for packet in hostile_packets(mouth):
            ethertype = 0x0800 if mouth.family == 4 else 0x86DD
            wire.send(bytes(12) + ethertype.to_bytes(2, "big") + packet)
            sent += 1
    expected = {"short_transport", "other_protocol", "other_icmp", "no_flow", "short_error"}
    wait_until(lambda: all(path.counts()[name] for name in expected), path.counts)
    running.settle()
    reasons = {name: count for name, count in path.counts().items() if count}
    assert "internal" not in reasons
    assert sent > 300
    assert running.queue.faults == 0, running.queue.first_fault
    mouth.send(b"no service has this port")
    assert mouth.receive()[0] == b"no service has this port"


def test_the_packet_path_of_nat(serve: Any, routed: Any) -> None:
    """A connection rewritten in both directions carries megabytes, with packets of any length. The
    sender joins segments into longer packets, which the kernel splits again if the queue I/O does
    not accept them whole.
    """
    path = worker_datapath.build(service_config(routed.vip, routed.backend), 0, time.monotonic())
    running = serve(path.handle)
    data = random.Random(2).randbytes(3_000_000)
    echoed = bytearray()

    def echo() -> None:
        connection, _ = routed.listener.accept()
        with connection:
            while chunk := connection.recv(1 << 16):
                connection.sendall(chunk)

    routed.listener.bind((routed.backend, 8080))
    routed.listener.listen()
    threading.Thread(target=echo, daemon=True).start()
    routed.client.connect((routed.vip, 80))
    assert routed.client.getpeername()[0] == routed.vip
    threading.Thread(target=routed.client.sendall, args=(data,), daemon=True).start()
    while len(echoed) < len(data):
        chunk = routed.client.recv(1 << 16)
        assert chunk
        echoed += chunk
    assert bytes(echoed) == data
    running.settle()
    assert path.flows == 1
    assert running.queue.faults == 0, running.queue.first_fault


def service_config(vip: str, backend: str) -> Config:
    """One port-mapped TCP service."""
    prefix = 128 if ":" in vip else 32
    return Config.model_validate(
        {
            "services": [
                {
                    "name": "web",
                    "vip": f"{vip}/{prefix}",
                    "protocol": "tcp",
                    "ports": 80,
                    "backends": [{"address": backend, "port": 8080}],
                }
            ]
        }
    )


def hostile_packets(mouth: Any) -> list[bytes]:
    """IP packets whose header the kernel takes and whose rest is cut, odd, random or a lie."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import (
        ICMPv6EchoRequest,
        ICMPv6PacketTooBig,
        ICMPv6Unknown,
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
    )
    from scapy.packet import Raw

    noise = random.Random(3)
    four = mouth.family == 4

    def ip(**fields: Any) -> Any:
        return (IP if four else IPv6)(src=mouth.client, dst=mouth.target, **fields)

    def protocol(number: int) -> Any:
        return ip(proto=number) if four else ip(nh=number)

    icmp = 1 if four else 58
    error = (3, 11, 12) if four else (1, 2, 3, 4)
    made = [
        protocol(number) / Raw(noise.randbytes(size))
        for number in (6, 17, icmp, 0, 4, 41, 43, 44, 47, 50, 51, 58, 60, 132, 253, 255)
        for size in (1, 3, 4, 7, 8, 12, 19, 20, 40)
    ]
    made += [
        protocol(icmp) / Raw(bytes([kind, code, 0, 0]) + noise.randbytes(size))
        for kind in (*error, 0, 5, 8, 13, 128, 129, 133, 255)
        for code in (0, 4)
        for size in (0, 4, 5, 24, 32, 44, 60)
    ]
    made += [ip() / TCP(sport=noise.randrange(65536), dport=80, flags=flags) for flags in range(64)]
    made += [ip() / UDP(sport=0, dport=0, len=size) / b"lies" for size in (0, 7, 9, 65535)]
    if four:
        made += [ip(options=bytes([7, 39, 4]) + bytes(37)) / TCP(dport=80, flags="S")]
        made += [ip() / ICMP(type=3, code=4) / ip() / ICMP(type=3) / ip() / TCP()]
    else:
        made += [ip() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / TCP(dport=80, flags="A")]
        made += [ip() / IPv6ExtHdrFragment(offset=0, m=0) / UDP(dport=80)]
        made += [ip() / ICMPv6PacketTooBig(mtu=0) / ip() / ICMPv6PacketTooBig() / ip()]
        made += [ip() / ICMPv6EchoRequest(), ip() / ICMPv6Unknown(type=200)]
    return [bytes(packet) for packet in made]
