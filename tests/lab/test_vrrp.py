"""Who has the addresses of a pair, and how they move without keepalived."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from paraglider.errors import OperatorError
from paraglider.lab import vrrp
from paraglider.lab.fleet_router import Beats
from paraglider.lab.vrrp import OwnVrrp, addresses, give_up, preferred, take


@pytest.mark.parametrize(
    ("alive", "well", "expected"),
    [
        ({1, 2}, {1, 2}, 1),
        ({1, 2}, {2}, 2),
        ({2}, {1, 2}, 2),
        ({1, 2}, set(), 1),
        ({2}, set(), 2),
        (set(), {1}, None),
    ],
)
def test_who_has_the_addresses(alive: set[int], well: set[int], expected: int | None) -> None:
    """The first that is well; if none is, one of those that have power."""
    assert preferred(alive, well) == expected


class Host:
    """A balancer's namespace, daemon and cables."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.host = self
        self.addresses: set[str] = set()
        self.well = True
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def ip(self, *lines: str) -> None:
        """Give it addresses."""
        for line in lines:
            assert line.startswith("address replace ")
            self.addresses.add(line.removeprefix("address replace ").removesuffix(" nodad"))

    def run(self, command: list[str], **_: Any) -> None:
        """Take them away."""
        assert command[:3] == ["ip", "address", "del"]
        self.addresses.discard(" ".join(command[3:]))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """In it."""
        yield


EVERY = {
    "192.168.0.250/24 dev eth0", "10.0.0.254/24 dev eth1",
    "2001:db8::250/64 dev eth0", "fd00:10::fe/64 dev eth1",
}  # fmt: skip


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OwnVrrp, Host, Host]]:
    """Two balancers, and what moves the addresses."""
    one, two = Host(1), Host(2)
    monkeypatch.setattr(vrrp, "_well", lambda member: member.well)
    monkeypatch.setattr(vrrp, "announce_now", lambda _: None)
    mover = OwnVrrp(Beats({host.number: host.ends for host in (one, two)}), through=True)
    yield mover, one, two
    mover.close()
    mover.close()


def test_they_move_by_health(pair: Any) -> None:
    """To the second if the first is not well, and back."""
    mover, one, two = pair
    mover.begin(one)
    wait_until(lambda: one.addresses == EVERY)
    mover.begin(two)
    one.well = False
    wait_until(lambda: two.addresses == EVERY and not one.addresses)
    one.well = True
    wait_until(lambda: one.addresses == EVERY and not two.addresses)


def test_they_move_when_the_power_goes(pair: Any) -> None:
    """Only when three datagrams are missing, since nobody can say so; the balancer that has power
    again gets them when its daemon runs.
    """
    mover, one, two = pair
    mover.begin(one)
    mover.begin(two)
    wait_until(lambda: one.addresses == EVERY)
    mover.cut(one)
    assert one.addresses == set()
    one.well = False  # nobody knows
    with mover._lock:
        mover._move()
        assert mover._active == 1
    sender, receiver = one.ends
    pulled = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pulled:
        end.setblocking(False)
    with mover._lock:
        mover._beats._ends[1] = pulled[0], receiver
    wait_until(lambda: two.addresses == EVERY)
    with mover._lock:
        mover._beats._ends[1] = sender, receiver
    wait_until(lambda: 1 in mover._beats.alive)
    with mover._lock:
        mover._move()
        assert mover._active == 2
    one.well = True
    mover.begin(one)
    wait_until(lambda: one.addresses == EVERY and not two.addresses)
    for end in pulled:
        end.close()


def test_who_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The neighbours on both sides, or on the clients' if backends answer directly."""
    told: list[str] = []
    monkeypatch.setattr(
        vrrp, "announce_now", lambda places: told.extend(f"{link} {at}" for link, at in places)
    )
    host: Any = Host(1)
    take(host, through=True)
    assert told == [
        "eth0 192.168.0.250", "eth1 10.0.0.254", "eth0 2001:db8::250", "eth1 fd00:10::fe",
    ]  # fmt: skip
    assert host.addresses == EVERY
    give_up(host, through=True)
    assert host.addresses == set()
    take(host, through=False)
    assert host.addresses == {each for f in (4, 6) for each in addresses(f, through=False)}


def test_a_daemon_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not well; else it says whether it is to be announced."""

    class Control:
        def __init__(self, path: str, timeout: float) -> None:
            assert timeout <= 1
            self._path = path

        def get(self, what: str, of: str) -> dict[str, bool]:
            assert (what, of) == ("health", "node")
            if self._path == "gone":
                raise OperatorError("no paraglider answers")
            return {"announce": self._path == "well"}

    monkeypatch.setattr(vrrp, "ControlClient", Control)
    member: Any = Host(1)
    member.control = member
    for path, expected in (("well", True), ("drained", False), ("gone", False)):
        member.path = path
        assert vrrp._well(member) is expected
