"""The router's routes: what announcers print, and who is still there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from waiting import wait_until

from paraglider.errors import PlatformError
from paraglider.lab import fleet_router
from paraglider.lab.fleet_router import Announced, Beats, FleetRouter, RouteLine, parse
from paraglider.lab.fleet_topology import BITS, VIP

WEB, WEB6 = (f"{VIP[family]}/{BITS[family]}" for family in (4, 6))
NEIGHBOR = "neighbor 192.168.0.254"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "neighbor 192.168.0.254 announce route 203.0.113.11/32 next-hop self med 100\n",
            RouteLine("203.0.113.11/32", True, 100),
        ),
        (
            f"{NEIGHBOR} announce route {WEB6} next-hop self med 1000 as-path [ 65001 65001 ]",
            RouteLine("2001:db8:f::11/128", True, 1000),
        ),
        ("announce route 203.0.113.11/32 next-hop self", RouteLine("203.0.113.11/32", True, 0)),
        (
            "neighbor 192.168.0.254 withdraw route 203.0.113.11/32 next-hop self",
            RouteLine("203.0.113.11/32", False),
        ),
        ("", None),
        ("neighbor 192.168.0.254 announce flow route { }", None),
        ("shutdown", None),
    ],
)
def test_lines(line: str, expected: RouteLine | None) -> None:
    """Routes to a neighbor, or to all; nothing else is one."""
    assert parse(line) == expected


def said(*lines: tuple[int, str]) -> Announced:
    """What balancers have announced, each of whom has an announcer."""
    found = Announced()
    for number in {number for number, _ in lines}:
        found.begin(number)
    for number, line in lines:
        found.hear(number, line)
    return found


def test_the_lowest_med_is_used() -> None:
    """By all that have it, of those that are alive; prefixes are apart."""
    found = said(
        (1, f"announce route {WEB} next-hop self med 100"),
        (2, f"announce route {WEB} next-hop self med 100"),
        (3, f"announce route {WEB} next-hop self med 1000"),
        (3, f"announce route {WEB6} next-hop self med 1000"),
        (3, "what is no route"),
    )
    assert found.best(WEB, {1, 2, 3}) == (1, 2)
    assert found.best(WEB, {2, 3}) == (2,)
    assert found.best(WEB, {3}) == (3,)
    assert found.best(WEB, ()) == ()
    assert found.best(WEB6, {1, 2, 3}) == (3,)


def test_the_last_word_counts() -> None:
    """A withdrawn route is none; one that is announced again has its new MED; a new announcer has
    said nothing.
    """
    found = said((1, f"announce route {WEB} med 100"), (2, f"announce route {WEB} med 100"))
    found.hear(1, f"withdraw route {WEB}")
    assert found.best(WEB, {1, 2}) == (2,)
    found.hear(1, f"announce route {WEB} med 50")
    assert found.best(WEB, {1, 2}) == (1,)
    found.begin(1)
    assert found.best(WEB, {1, 2}) == (2,)


@pytest.fixture
def ends() -> Iterator[dict[int, tuple[socket.socket, socket.socket]]]:
    """Cables of two balancers."""
    made = {n: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for n in (1, 2)}
    yield made
    for pair in made.values():
        for end in pair:
            end.close()


def test_three_missing_in_a_row(ends: dict[int, tuple[socket.socket, socket.socket]]) -> None:
    """Nobody is alive before the first datagram; with the third that is missing a balancer is gone,
    and with the next that comes it is back.
    """
    beats = Beats(ends)
    assert beats.alive == frozenset()
    beats.beat()
    assert beats.alive == frozenset()
    beats.beat()
    assert beats.alive == {1, 2}
    sender, receiver = ends[1]
    receiver.recv(16)  # it is lost
    for _ in range(2):
        beats.beat()
        receiver.recv(16)
        assert beats.alive == {1, 2}
    beats.beat()
    assert beats.alive == {2}
    beats.beat()
    assert beats.alive == {1, 2}
    sender.close()
    for _ in range(5):
        beats.beat()
    assert beats.alive == {2}


class Net:
    """A network whose routes are remembered."""

    def __init__(self) -> None:
        self.routes: list[tuple[int, tuple[int, ...]]] = []

    def lead(self, family: int, numbers: tuple[int, ...]) -> None:
        """As that of ``FleetTopology``."""
        self.routes.append((family, numbers))


class Announcer:
    """The output of an announcer."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self.stdout = os.fdopen(reading, "rb")

    def say(self, text: str) -> None:
        """Print ``text``."""
        os.write(self._writing, text.encode())

    def close(self) -> None:
        """It ends."""
        os.close(self._writing)


def announced(*families: int) -> str:
    """The lines of a balancer that is well."""
    return "".join(
        f"{NEIGHBOR} announce route {VIP[family]}/{BITS[family]} next-hop self med 100\n"
        for family in families
    )


Listening = Callable[[], tuple[FleetRouter, Net, dict[int, Announcer]]]


@pytest.fixture
def listening(ends: dict[int, tuple[socket.socket, socket.socket]]) -> Iterator[Listening]:
    """A function that starts a router, whose two balancers' announcers have said nothing."""
    made: list[FleetRouter] = []
    announcers = {1: Announcer(), 2: Announcer()}

    def start() -> tuple[FleetRouter, Net, dict[int, Announcer]]:
        net: Any = Net()
        router = FleetRouter(net, Beats(ends))
        made.append(router)
        router.start()
        for number, announcer in announcers.items():
            process: Any = announcer
            router.listen(number, process)
        return router, net, announcers

    yield start
    for router in made:
        router.close()
        router.close()
    for announcer in announcers.values():
        announcer.stdout.close()


def test_routes_follow_the_lines(listening: Listening) -> None:
    """Also a line that comes in two pieces; what an announcer said holds after its end, until the
    datagrams are missing.
    """
    router, net, announcers = listening()
    begin = time.monotonic()
    announcers[1].say(announced(4, 6))
    assert router.await_hops({1}, begin) >= 0
    assert router.await_hops([1], time.monotonic() + 1000) == 0
    whole = announced(4, 6)
    announcers[2].say(whole[:20])
    announcers[2].say(whole[20:])
    router.await_hops({2, 1}, begin)
    announcers[1].say(f"{NEIGHBOR} withdraw route {WEB}\n{NEIGHBOR} withdraw route {WEB6}\n")
    router.await_hops({2}, begin)
    announcers[2].close()
    time.sleep(0.1)
    router.await_hops({2}, begin)
    assert net.routes == [(family, hops) for hops in ((1,), (1, 2), (2,)) for family in (4, 6)]
    announcers[1].close()


def test_a_balancer_without_power(
    listening: Listening, ends: dict[int, tuple[socket.socket, socket.socket]]
) -> None:
    """It withdraws nothing, and its routes go with its datagrams. When these come again, so do its
    routes, unless its announcer has ended: a new one says which hold.
    """
    router, _, announcers = listening()
    for announcer in announcers.values():
        announcer.say(announced(4, 6))
    router.await_hops({1, 2}, 0)
    pulled = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pulled:
        end.setblocking(False)
    for ended in (False, True):
        whole, ends[1] = ends[1], (pulled[0], ends[1][1])
        if ended:
            announcers[1].close()
        router.await_hops({2}, 0)
        ends[1] = whole
        if not ended:
            router.await_hops({1, 2}, 0)
    wait_until(lambda: 1 in router._beats.alive)
    time.sleep(0.1)
    router.await_hops({2}, 0)
    another: Any = Announcer()
    router.listen(1, another)
    another.say(announced(4, 6))
    router.await_hops({1, 2}, 0)
    announcers[2].close()
    another.close()
    another.stdout.close()
    for end in pulled:
        end.close()


def test_routes_that_do_not_come(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a timeout the error has those that are there."""
    monkeypatch.setattr(fleet_router, "TIMEOUT", 0.0)
    router, _, announcers = listening()
    announcers[1].say(announced(4))
    wait_until(lambda: router._hops[4][0] == (1,))
    with pytest.raises(PlatformError, match=r"to the balancers \{4: \(1,\), 6: \(\)\}, not to"):
        router.await_hops({1, 2}, 0)
    for announcer in announcers.values():
        announcer.close()


def test_a_route_that_is_refused(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the thread is raised where the route is waited for."""

    def refuse(*_: object) -> None:
        raise PlatformError("no route")

    monkeypatch.setattr(Net, "lead", refuse)
    router, _, announcers = listening()
    announcers[1].say(announced(4))
    with pytest.raises(PlatformError, match="no route"):
        router.await_hops({1}, 0)
    for announcer in announcers.values():
        announcer.close()


def test_closing_ends_the_sockets(ends: dict[int, tuple[socket.socket, socket.socket]]) -> None:
    """A router that has not started can be closed too."""
    with closing(FleetRouter(Net(), Beats(ends))):  # type: ignore[arg-type]
        pass
    assert all(end.fileno() == -1 for pair in ends.values() for end in pair)
