"""The queues of a worker: which are opened and how; that the kernel splits for tunnels alone."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from waiting import wait_until

from paraglider.core.verdict import PASS
from paraglider.netfilter.queue import worker_queues
from paraglider.netfilter.queue.base import LONGEST_PACKET
from paraglider.netfilter.queue.worker_queues import Lengths, open_queues
from paraglider.netfilter.rules.steering import TUNNELS

CORE, COPY = 3, 224
UDP_SEGMENT = 103  # linux/udp.h


class Opened:
    """A queue that was opened so; ``copied`` are the sizes that it was told."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        _, self.number, self.length, self.size = arguments
        self.options = options
        self.copied: list[int] = []

    def copy(self, size: int) -> None:
        """See ``base.Queue``."""
        self.copied.append(size)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that are only recorded; nothing polls them."""
    monkeypatch.setattr(worker_queues, "open_queue", Opened)
    monkeypatch.setattr("paraglider.netfilter.queue.reader._polling", lambda _queues: None)


def test_without_tunnels(opened: None) -> None:
    """Three; what may open a flow waits in shorter ones."""
    reader = open_queues("auto", CORE, Lengths(2048, 512), COPY)
    found: list[Any] = list(reader.queues)
    assert [(q.number, q.length, q.size) for q in found] == [
        (CORE, 2048, COPY),
        (CORE + 4096, 512, COPY),
        (CORE + 8192, 512, COPY),
    ]
    assert [q.options for q in found] == [{}, {}, {"fail_open": True}]
    assert reader.first == 1
    reader.copy(9)
    assert [q.copied for q in found] == [[9], [9], [9]]


def test_with_tunnels(opened: None) -> None:
    """Their packets are split and whole, and the established ones are read as the others are; the
    queue of the other methods stays as it is.
    """
    reader = open_queues("auto", CORE, Lengths(2048, 512), COPY, tunnels=True)
    found: list[Any] = list(reader.queues)
    assert [(q.number, q.length, q.size) for q in found] == [
        (CORE, 2048, COPY),
        (CORE + TUNNELS, 2048, LONGEST_PACKET),
        (CORE + 4096, 512, LONGEST_PACKET),
        (CORE + 8192, 512, COPY),
    ]
    split = {"merged": False}
    assert [q.options for q in found] == [{}, split, split, {"fail_open": True}]
    assert reader.first == 2
    reader.copy(9)
    assert [q.copied for q in found] == [[9], [], [], [9]]


@pytest.mark.root
def test_the_kernel_splits_for_tunnels_alone(inside: Any) -> None:
    """Ten datagrams that a client sends in one call wait as a longer packet in the queue of
    established traffic, and one by one in that of tunnels.
    """
    rules = "".join(
        f"-A INPUT -p udp --dport {port} -j NFQUEUE --queue-num {number}\n"
        for port, number in ((1, 0), (2, TUNNELS))
    )
    inside.run(["iptables-restore"], text=f"*filter\n{rules}COMMIT\n")
    reader = open_queues("netlink", 0, Lengths(64, 64), LONGEST_PACKET, tunnels=True)
    seen: dict[int, list[int]] = {1: [], 2: []}

    def handle(buf: bytearray, offset: int, length: int, _checksum: int, _now: float) -> int:
        seen[buf[offset + 23]].append(length)
        return PASS

    def all_read() -> bool:
        for queue in reader.queues:
            queue.read(handle, 64, 0.0)
        return all(sum(lengths) >= 6000 for lengths in seen.values())

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 600)
        for port in seen:
            client.sendto(bytes(6000), ("127.0.0.1", port))
    try:
        wait_until(all_read)
    finally:
        reader.close()
    assert max(seen[1]) > 628
    assert seen[2] == [628] * 10
