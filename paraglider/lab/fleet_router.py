"""The router of the lab's balancers: it learns its routes from what their announcers print.

So it does where BIRD is not installed (``bird``): the lab reads the lines that `paraglider announce
--exabgp` prints for ExaBGP, and sets the router's routes as BGP would. A balancer that loses its
power withdraws nothing: each sends the router a datagram ten times a second, and when three in a
row are missing all its routes go, as with BFD.

Lives here: ``RouteSource``, what the router has its routes from; ``parse`` and ``Announced``
(pure), ``Beats``, ``Beating``, what has a thread that sends them, and ``FleetRouter``.
Rules: of the routes to a VIP those with the lowest MED are used, all of them (ECMP). The lines of a
balancer whose datagrams are missing do not count; when it is back they count again if its announcer
still runs: so does BGP, whose session begins anew. A thread of its own sets the routes, and
remembers when; its errors are raised where the routes are waited for.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from paraglider.errors import PlatformError
from paraglider.lab.fleet_topology import BITS, ROUTER, VIP, FleetTopology, front_address
from paraglider.lab.member import Member

EVERY: Final = 0.1  # seconds between two datagrams
MISSED: Final = 3
TIMEOUT: Final = 60.0  # seconds until the routes must be as expected
POLL: Final = 0.01  # seconds
_PORT: Final = 3784  # that of BFD (RFC 5881)

_LINE = re.compile(
    r"(?:neighbor \S+ )?(?P<what>announce|withdraw) route (?P<prefix>\S+)(?P<rest>.*)", re.ASCII
)
_MED = re.compile(r" med (\d+)\b", re.ASCII)


class RouteSource(Protocol):
    """What the router has its routes to the VIPs from; the programs of each balancer too."""

    def begin(self, member: Member) -> None:
        """Start what announces the VIPs of ``member``, whose daemon runs."""

    def cut(self, member: Member) -> None:
        """End that without a word to the router: ``member`` has no cables any more."""

    def await_hops(self, wanted: Collection[int], since: float) -> float:
        """Wait until the routes to both VIPs lead to the balancers ``wanted``; returns how many
        seconds after ``since`` (``time.monotonic``) they did. Raises ``PlatformError`` after a
        timeout.
        """

    def close(self) -> None:
        """End it; may be called again."""


def not_led(found: dict[int, Any], expected: object) -> PlatformError:
    """The error for routes that are as in ``found``, by family, after the timeout."""
    return PlatformError(
        f"the router leads to the balancers {found}, not to {expected}",
        "see the logs of the balancers and of the router",
    )


@dataclass(frozen=True)
class RouteLine:
    """One line: whether ``prefix``, such as 203.0.113.11/32, is announced, and with which MED."""

    prefix: str
    announced: bool
    med: int = 0


def parse(line: str) -> RouteLine | None:
    """The line of an announcer; None if it says nothing about a route."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    med = _MED.search(match["rest"])
    return RouteLine(match["prefix"], match["what"] == "announce", int(med[1]) if med else 0)


class Announced:
    """What every balancer announces: the MED by prefix."""

    def __init__(self) -> None:
        self._routes: dict[int, dict[str, int]] = {}

    def begin(self, number: int) -> None:
        """A new announcer of balancer ``number``, which has said nothing yet."""
        self._routes[number] = {}

    def hear(self, number: int, line: str) -> None:
        """A line of its announcer."""
        said = parse(line)
        if said is None:
            return
        if said.announced:
            self._routes[number][said.prefix] = said.med
        else:
            self._routes[number].pop(said.prefix, None)

    def best(self, prefix: str, alive: Collection[int]) -> tuple[int, ...]:
        """The balancers with the lowest MED for ``prefix``, of those ``alive``, in order."""
        meds = {
            number: routes[prefix]
            for number, routes in sorted(self._routes.items())
            if number in alive and prefix in routes
        }
        return tuple(number for number, med in meds.items() if med == min(meds.values()))


class Beats:
    """Datagrams from each number's socket to another one; the numbers of those that are missing
    ``MISSED`` in a row are not ``alive``.
    """

    def __init__(self, ends: Mapping[int, tuple[socket.socket, socket.socket]]) -> None:
        self._ends = ends
        self._missed = dict.fromkeys(ends, MISSED)
        for pair in ends.values():
            for end in pair:
                end.setblocking(False)

    @property
    def alive(self) -> frozenset[int]:
        """Those whose datagrams come."""
        return frozenset(number for number, missed in self._missed.items() if missed < MISSED)

    def beat(self) -> None:
        """Read what has come since the last time, and send the next: a process that was stopped
        meanwhile takes nobody for missing.
        """
        for number, (sender, receiver) in self._ends.items():
            heard = False
            with contextlib.suppress(OSError):
                while receiver.recv(16):
                    heard = True
            self._missed[number] = 0 if heard else self._missed[number] + 1
            with contextlib.suppress(OSError):  # its cable is pulled
                sender.send(b"alive")

    def close(self) -> None:
        """Close the sockets."""
        for pair in self._ends.values():
            for end in pair:
                end.close()


def beats_to_router(net: FleetTopology) -> Beats:
    """From each balancer of ``net`` to the router, over IPv4."""
    ends = {}
    for number, host in enumerate(net.hosts, 1):
        with net.router.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((ROUTER[4], _PORT + number))
        with host.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((front_address(4, number), 0))
        sender.connect((ROUTER[4], _PORT + number))
        ends[number] = sender, receiver
    return Beats(ends)


class Beating(ABC):
    """Has a thread of its own that sends ``beats``, until ``close``."""

    def __init__(self, beats: Beats) -> None:
        self._beats = beats
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abstractmethod
    def _run(self) -> None:
        """The thread; it ends soon after ``_over`` is set."""

    def close(self) -> None:
        """End the thread; may be called again."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._beats.close()


class FleetRouter(Beating):
    """The router of ``net``, to which its balancers send ``beats``; its thread runs from ``start``
    to ``close``. A ``RouteSource``.
    """

    def __init__(self, net: FleetTopology, beats: Beats) -> None:
        super().__init__(beats)
        self._net = net
        self._announced = Announced()
        self._outputs: dict[int, int] = {}  # the balancer by the descriptor of its announcer
        self._rest: dict[int, bytes] = {}
        self._ended: set[int] = set()  # the balancers whose announcer has ended
        #: of each family the balancers, and since when
        self._hops: dict[int, tuple[tuple[int, ...], float]] = dict.fromkeys(VIP, ((), 0.0))
        self._error: Exception | None = None
        self._announcers: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, member: Member) -> None:
        """See ``RouteSource``."""
        with (member.directory / "announce.log").open("ab") as log:
            announcer = member.host.popen(
                [*member.command, "announce", "--exabgp"], stdout=subprocess.PIPE, stderr=log
            )
        self._announcers[member.number] = announcer
        self.listen(member.number, announcer)

    def cut(self, member: Member) -> None:
        """See ``RouteSource``."""
        # With SIGTERM it would withdraw, by a pipe that needs no cable.
        announcer = self._announcers.pop(member.number)
        announcer.kill()
        announcer.wait()

    def listen(self, number: int, announcer: subprocess.Popen[bytes]) -> None:
        """Read the lines of balancer ``number`` from a new announcer."""
        assert announcer.stdout is not None  # noqa: S101 - stdout=PIPE
        with self._lock:
            self._announced.begin(number)
            self._ended.discard(number)
            descriptor = announcer.stdout.fileno()
            self._outputs[descriptor], self._rest[descriptor] = number, b""

    def await_hops(self, wanted: Collection[int], since: float) -> float:
        """See ``RouteSource``: 0 if they did before. Raises what the router's thread has raised,
        too.
        """
        expected = tuple(sorted(wanted))
        deadline = time.monotonic() + TIMEOUT
        while True:
            if self._error is not None:
                raise self._error
            found = dict(self._hops)
            if all(hops == expected for hops, _ in found.values()):
                return max(0.0, *(moment - since for _, moment in found.values()))
            if time.monotonic() > deadline:
                raise not_led({family: hops for family, (hops, _) in found.items()}, expected)
            time.sleep(POLL)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._over.is_set():
                self._read(POLL)
                if time.monotonic() >= due:
                    self._beats.beat()
                    due = time.monotonic() + EVERY
                self._lead()
        except Exception as error:  # noqa: BLE001 - raised by await_hops
            self._error = error

    def _read(self, timeout: float) -> None:
        ready, _, _ = select.select(list(self._outputs), [], [], timeout)
        with self._lock:
            for descriptor in ready:
                number = self._outputs[descriptor]
                data = os.read(descriptor, 65_536)
                *lines, self._rest[descriptor] = (self._rest[descriptor] + data).split(b"\n")
                for line in lines:
                    self._announced.hear(number, line.decode(errors="replace"))
                if not data:  # what it said holds while the balancer is there
                    del self._outputs[descriptor], self._rest[descriptor]
                    self._ended.add(number)

    def _lead(self) -> None:
        alive = self._beats.alive
        with self._lock:
            for number in self._ended - alive:
                self._announced.begin(number)
        for family, vip in VIP.items():
            hops = self._announced.best(f"{vip}/{BITS[family]}", alive)
            if hops != self._hops[family][0]:
                self._net.lead(family, hops)
                self._hops[family] = hops, time.monotonic()
