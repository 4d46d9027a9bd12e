"""The addresses that move between the two balancers of a lab, as VRRP moves them.

The router has a route of the VIPs by one of the addresses, and the backends have another one as
their gateway. The first balancer has them unless it has no power, or its health says no.

Lives here: the addresses, ``AddressMover``, what moves them: ``keepalived`` or, where that is not
installed, the thread of ``OwnVrrp``; and ``preferred`` (pure).
Rules: a balancer without power keeps no address. The thread asks the daemons for what keepalived
asks for, and hears by datagrams which balancers have power; of one that has lost it, it knows what
was said last, until the datagrams are missing.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection
from typing import Final, Protocol

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import ParagliderError
from paraglider.host.announce import announce_now
from paraglider.lab.fleet_router import EVERY, Beating, Beats
from paraglider.lab.fleet_topology import WIDTH
from paraglider.lab.member import Member
from paraglider.lab.namespace import Namespace

FRONT: Final = {4: "192.168.0.250", 6: "2001:db8::250"}
BACK: Final = {4: "10.0.0.254", 6: "fd00:10::fe"}
_ANSWER: Final = 1.0  # timeout of a daemon's answer, in seconds


class AddressMover(Protocol):
    """What moves the addresses."""

    def begin(self, member: Member) -> None:
        """From now on to ``member`` too, whose daemon runs."""

    def cut(self, member: Member) -> None:
        """No longer to ``member``, which has lost its power, and its addresses with it."""

    def close(self) -> None:
        """End it; may be called again."""


def addresses(family: int, *, through: bool) -> list[str]:
    """Those of ``family``, as `ip address` takes them; the backends' gateway if answers come
    ``through`` the balancers.
    """
    found = [f"{FRONT[family]}/{WIDTH[family]} dev eth0"]
    return found + ([f"{BACK[family]}/{WIDTH[family]} dev eth1"] if through else [])


def preferred(alive: Collection[int], well: Collection[int]) -> int | None:
    """Which balancer is to have the addresses: the first of those that are ``alive`` and ``well``,
    else of those that are alive.
    """
    return min(set(alive) & set(well) or alive, default=None)


def give_up(host: Namespace, *, through: bool) -> None:
    """Remove those of the addresses that ``host`` has."""
    for family in FRONT:
        for each in addresses(family, through=through):
            host.run(["ip", "address", "del", *each.split()], check=False)


def take(host: Namespace, *, through: bool) -> None:
    """Give ``host`` the addresses, and have it tell its neighbours; raises ``PlatformError``."""
    lines, places = [], []
    for family in FRONT:
        for each in addresses(family, through=through):
            lines.append(f"address replace {each}{' nodad' if family == 6 else ''}")
            address, _, interface = each.partition(" dev ")
            places.append((interface, ipaddress.ip_interface(address).ip))
    host.ip(*lines)
    with host.entered():
        announce_now(places)


class OwnVrrp(Beating):
    """A thread in the place of keepalived, for balancers that send ``beats``. A balancer without
    power gets no address: whoever changes that has the lock.
    """

    def __init__(self, beats: Beats, *, through: bool) -> None:
        super().__init__(beats)
        self._through = through
        self._members: dict[int, Member] = {}
        self._well: dict[int, bool] = {}  # what each has said last
        self._off: set[int] = set()  # those that can say nothing
        self._active: int | None = None

    def begin(self, member: Member) -> None:
        """See ``AddressMover``."""
        with self._lock:
            self._members[member.number] = member
            self._off.discard(member.number)
        if not self._thread.is_alive():
            self._thread.start()

    def cut(self, member: Member) -> None:
        """See ``AddressMover``."""
        with self._lock:
            self._off.add(member.number)
            give_up(member.host, through=self._through)

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(ParagliderError), self._lock:
                self._beats.beat()
                self._move()

    def _move(self) -> None:
        alive = self._beats.alive & self._members.keys()
        for number, member in self._members.items():
            if number not in alive:
                self._well[number] = False
            elif number not in self._off:
                self._well[number] = _well(member)
        active = preferred(alive, [number for number in alive if self._well[number]])
        if active is None or active == self._active:
            return
        for number in alive - {active}:
            give_up(self._members[number].host, through=self._through)
        take(self._members[active].host, through=self._through)
        self._active = active


def _well(member: Member) -> bool:
    try:
        answer = ControlClient(member.control.path, _ANSWER).get("health", of="node")
    except ParagliderError:
        return False
    return bool(answer["announce"])
