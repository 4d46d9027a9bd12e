"""A kernel has no room for an ICMP message, since those of another network namespace wait."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from unsent import pinged, result_of, unsent_in
from waiting import await_connected

from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root

Links = dict[str, Namespace]


@pytest.fixture
def links() -> Iterator[Links]:
    """Two links without rates of ICMP errors: from `client` to `server`, and, in no way connected
    with it, from `absent` to `answering`. All that a test sends begins on one core.
    """
    before = os.sched_getaffinity(0)
    made: Links = {}
    try:
        for name in ("client", "server", "absent", "answering"):
            made[name] = Namespace(f"u{os.getpid()}-{name}")
            made[name].sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000")
        # The process that forks `peer.py`, for the tests of other files too, is not for one core.
        result_of(made["client"], "connect", "127.0.0.1", 999)
        os.sched_setaffinity(0, {min(before)})
        for number, (left, right) in enumerate((("client", "server"), ("absent", "answering"))):
            made[left].ip(f"link add eth0 type veth peer name eth0 netns {made[right].name}")
            for end, name in enumerate((left, right), 1):
                made[name].ip(f"address add 10.{number}.0.{end}/16 dev eth0", "link set eth0 up")
        for each in made.values():
            await_connected(each, "eth0")
        yield made
    finally:
        for each in made.values():
            each.close()
        os.sched_setaffinity(0, before)


def checksum(data: bytes) -> int:
    """Of an ICMP message with an even length."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF


class Waiting:
    """Pings of `answering` from addresses that nobody has, whose answers wait for those."""

    def __init__(self, links: Links) -> None:
        with links["absent"].entered():
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        body = struct.pack("!BBHI1400x", 8, 0, 0, 0)
        self._echo = struct.pack("!BBHI1400x", 8, 0, checksum(body), 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sources = 0
        while not self._ended.wait(0.002):
            sources = sources % 50_000 + 1
            source = bytes((10, 1, 1 + sources // 200, 1 + sources % 200))
            length = 20 + len(self._echo)
            head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_ICMP, 0)
            packet = head + source + bytes((10, 1, 0, 2)) + self._echo
            self._sock.sendto(packet, ("10.1.0.2", 0))

    def end(self) -> None:
        """Send no more."""
        self._ended.set()
        self._thread.join()
        self._sock.close()


def test_what_waits_elsewhere_costs_an_error(links: Links) -> None:
    """The server's error about a closed port, and its echo replies, get lost: its kernel counts
    them, without a limit of rates. They are asked for again, and the answer comes.
    """
    waiting = Waiting(links)
    try:
        for _ in range(100):
            assert result_of(links["client"], "udp", "10.0.0.2", 999, 9) == {
                "error": "ECONNREFUSED"
            }
            pinged(links["client"], "10.0.0.2")
            if unsent_in(links["server"]):
                break
        assert unsent_in(links["server"]) > 0
    finally:
        waiting.end()


def test_what_no_kernel_has_lost_is_not_repeated(links: Links) -> None:
    """A server that does not answer gets one ping, and the client fails."""
    links["server"].sysctl("net.ipv4.icmp_echo_ignore_all=1")
    with pytest.raises(AssertionError, match="100% packet loss"):
        pinged(links["client"], "10.0.0.2", "-W", "1")
    with links["server"].entered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("Icmp:"))
    assert numbers[names.index("InEchos")] == "1"
