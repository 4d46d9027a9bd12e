"""Fixtures of the queue I/O tests: a namespace whose traffic waits in a queue.

Packets to ``TARGET`` (on loopback) and to ``VIP`` (routed from a client to a backend) get the mark
of a worker and go to queue ``NUMBER``; so do replies of the routed backend. The test's thread is
inside the namespace while the fixture lasts, and so are the threads it starts: a handler is a
closure of the test, and /proc/net is that of the namespace.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from waiting import TIMEOUT, wait_until

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import join, new_prefix
from paraglider.netfilter.queue import QUEUES, Queue, QueueReader, open_queue
from paraglider.netfilter.queue.base import Handle
from paraglider.netfilter.queue.proc import QueueStatus, queue_status

NUMBER = 7
LENGTH = 60000
WORKER_MARK = 0x50470000
CLIENT = {4: "127.0.0.1", 6: "::1"}
TARGET = {4: "127.0.0.2", 6: "fd00::2"}
ROUTED_CLIENT = {4: "10.7.1.1", 6: "fd07:1::1"}
VIP = {4: "10.7.1.2", 6: "fd07:1::2"}
BACKEND = {4: "10.7.2.1", 6: "fd07:2::1"}
GATEWAY = {4: "10.7.2.2", 6: "fd07:2::2"}
PREFIX = {4: 24, 6: 64}
PORT = 5353

# include/uapi/asm-generic/socket.h; Python has no names for them
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_RCVMARK = 32, 33, 75
CLONE_NEWNET = 0x40000000


def _rules(family: int) -> str:
    matches = (
        f"PREROUTING -d {TARGET[family]}",
        f"PREROUTING -d {VIP[family]}",
        f"FORWARD -s {BACKEND[family]}",
    )
    lines = ["*mangle"]
    for match in matches:
        lines += [
            f"-A {match} -j MARK --set-mark 0x{WORKER_MARK:x}",
            f"-A {match} -j NFQUEUE --queue-num {NUMBER}",
        ]
    return "\n".join([*lines, "COMMIT\n"])


@pytest.fixture(scope="module")
def _namespaces() -> Iterator[dict[str, Namespace]]:
    with contextlib.ExitStack() as stack:
        made = {
            role: stack.enter_context(Namespace(f"{new_prefix()}-{role}"))
            for role in ("queue", "client", "backend")
        }
        middle = made["queue"]
        middle.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        join(middle, "eth0", made["client"], "eth0", 1500)
        join(middle, "eth1", made["backend"], "eth0", 1500)
        middle.ip(f"address add {TARGET[6]}/128 dev lo nodad")
        for family in (4, 6):
            _address(middle, "eth0", VIP, family)
            _address(middle, "eth1", GATEWAY, family)
            _address(made["client"], "eth0", ROUTED_CLIENT, family)
            _address(made["backend"], "eth0", BACKEND, family)
            made["backend"].ip(f"route add default via {GATEWAY[family]}")
        middle.run(["iptables-restore"], text=_rules(4))
        middle.run(["ip6tables-restore"], text=_rules(6))
        yield made


def _address(namespace: Namespace, device: str, table: dict[int, str], family: int) -> None:
    nodad = " nodad" if family == 6 else ""
    namespace.ip(f"address add {table[family]}/{PREFIX[family]} dev {device}{nodad}")


@pytest.fixture
def loopback(_namespaces: dict[str, Namespace]) -> Iterator[Namespace]:
    """The namespace of the queue, with the test's thread inside."""
    with _namespaces["queue"].entered():
        yield _namespaces["queue"]


class Routed:
    """A TCP client and listener with the queue's namespace as the router between them."""

    def __init__(self, namespaces: dict[str, Namespace], family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.vip, self.backend = VIP[family], BACKEND[family]
        # A socket stays in the namespace in which it was made.
        with namespaces["client"].entered():
            self.client = socket.socket(kind)
        with namespaces["backend"].entered():
            self.listener = socket.socket(kind)
            # The connection of the test before may still be closing.
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.client.settimeout(TIMEOUT)


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def routed(
    request: pytest.FixtureRequest, _namespaces: dict[str, Namespace], loopback: Namespace
) -> Iterator[Routed]:
    """A client and a backend, IPv4 and IPv6 in turn."""
    made = Routed(_namespaces, request.param)
    with made.client, made.listener:
        yield made


@pytest.fixture(params=sorted(QUEUES))
def io(request: pytest.FixtureRequest, loopback: Namespace) -> str:
    """The name of each queue I/O in turn: every one passes the same tests."""
    assert loopback.name
    return str(request.param)


class Running:
    """A queue that a thread serves, and when ``tick`` was called."""

    number = NUMBER

    def __init__(self, queue: Queue, handle: Handle) -> None:
        self.queue = queue
        self.reader = QueueReader([queue])
        self.ticks: list[float] = []
        self.raised: list[BaseException] = []
        self._handle = handle
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.reader.serve(self._handle, self.ticks.append)
        except BaseException as error:  # noqa: BLE001 - the test's thread is to see it
            self.raised.append(error)

    @property
    def status(self) -> QueueStatus:
        """The kernel's status of the queue."""
        return queue_status()[NUMBER]

    @property
    def serving(self) -> bool:
        """``serve`` has not returned."""
        return self._thread.is_alive()

    def settle(self) -> None:
        """Wait until every packet has its verdict; fail when one never gets it."""
        wait_until(lambda: self.status.waiting == 0, lambda: "a packet has no verdict")

    def stop(self) -> None:
        """Stop, and see that ``serve`` returns and raised nothing."""
        self.reader.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "serve did not return"
        assert not self.raised, self.raised


@pytest.fixture
def serve(io: str) -> Iterator[Callable[..., Running]]:
    """A function that has a thread serve the queue with a handler.

    Afterwards it is stopped and closed, and the test fails when a packet was left without verdict.
    """
    running: list[Running] = []

    def start(handle: Handle, length: int = LENGTH) -> Running:
        running.append(Running(open_queue(io, NUMBER, length), handle))
        return running[-1]

    yield start
    for one in running:
        try:
            if one.serving:
                one.settle()
            one.stop()
        finally:
            one.queue.close()


class Mouth:
    """A UDP socket at ``CLIENT`` that sends to ``TARGET``, and the received datagrams."""

    def __init__(self, family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.family = family
        self.client, self.target = CLIENT[family], TARGET[family]
        self.sender = socket.socket(kind, socket.SOCK_DGRAM)
        self.sender.bind((CLIENT[family], 0))
        self.receiver = socket.socket(kind, socket.SOCK_DGRAM)
        for sock in (self.sender, self.receiver):
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        self.receiver.bind((TARGET[family], PORT))
        self.receiver.settimeout(TIMEOUT)

    def send(self, data: bytes) -> None:
        """One datagram through the queue."""
        self.sender.sendto(data, (TARGET[self.family], PORT))

    def receive(self) -> tuple[bytes, int]:
        """The next datagram that arrives, and its packet's mark."""
        data, ancillary, _, _ = self.receiver.recvmsg(1 << 17, 256)
        marks = [
            int.from_bytes(value, "little")
            for level, kind, value in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SO_MARK)
        ]
        return data, marks[0] if marks else 0

    def silent(self) -> bool:
        """No further datagram has arrived."""
        self.receiver.setblocking(False)
        try:
            self.receiver.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.receiver.settimeout(TIMEOUT)
        return False

    def close(self) -> None:
        """Close both sockets."""
        self.sender.close()
        self.receiver.close()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def mouth(request: pytest.FixtureRequest, loopback: Namespace) -> Iterator[Mouth]:
    """A sender and a receiver, IPv4 and IPv6 in turn."""
    assert loopback.name
    made = Mouth(request.param)
    yield made
    made.close()
