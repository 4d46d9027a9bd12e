"""``paraglider lab --pair``: two balancers with VRRP, and what happens to the active one.

Lives here: ``PairLab``, a run of the lab with this scenario.
Rules: as in ``several_scenario``. The router's route of the VIPs is by an address that moves, and
the backends' gateway moves with it, so that one file is for every method. With `forward: offload`
each kernel gets the connections of the other by conntrackd, if that is installed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Collection
from typing import Any

from rich.console import Console

from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.registry import methods
from paraglider.lab import conntrackd, keepalived
from paraglider.lab.conntrackd import Conntrackd
from paraglider.lab.fleet_router import beats_to_router
from paraglider.lab.fleet_topology import FleetTopology
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.keepalived import Keepalived
from paraglider.lab.member import Member
from paraglider.lab.namespace import execute
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import ACTS, SeveralLab, installed
from paraglider.lab.vrrp import BACK, FRONT, AddressMover, OwnVrrp

#: methods that the pair shows; to a balancer the others are as one of these
FORWARDS = tuple(m.name for m in methods() if not m.listens and (m.owns_vip or m.neighbours))
TIMEOUT = 60.0  # seconds until the addresses must have moved
_POLL = 0.02  # seconds
_DISCARD = 9  # a port where nobody listens


class PairLab(SeveralLab):
    """One run; ``has_keepalived`` and ``has_conntrackd``: whether they are used, by default if they
    are installed.
    """

    option = "--pair"
    count = 2
    victim = 1

    def __init__(
        self,
        options: LabOptions,
        console: Console,
        acts: Collection[str] = ACTS,
        *,
        has_keepalived: bool | None = None,
        has_conntrackd: bool | None = None,
    ) -> None:
        super().__init__(options, console, acts)
        if options.forward not in FORWARDS:
            raise OperatorError(
                f"the pair is not shown with --forward {options.forward}",
                f"use --forward {', '.join(FORWARDS[:-1])} or {FORWARDS[-1]}, or --balancers 2",
            )
        self._has_keepalived = installed(keepalived.PROGRAM, has_keepalived)
        self._has_conntrackd = installed(conntrackd.PROGRAM, has_conntrackd)
        self._through = options.method.owns_vip  # answers come through the balancers
        self._mover: AddressMover | None = None
        self._sync: Conntrackd | None = None
        self._hardware: dict[int, str] = {}
        self._probes: dict[int, socket.socket] = {}
        self.beside = (
            "beside each keepalived, which moves the addresses ([cyan]keepalived.conf[/])"
            if self._has_keepalived
            else "in the place of keepalived, which is not installed, a loop of the lab that moves"
            " the addresses by [cyan]paraglider health --node[/]"
        )

    def _document(self, number: int) -> dict[str, Any]:
        return self._file(number)

    def _prepare(self, net: FleetTopology, interrupts: Interrupts) -> None:
        self._net = net
        self._print(
            f"   The router leads to the VIPs by {FRONT[4]} and {FRONT[6]}"
            + (f"; the backends answer by {BACK[4]} and {BACK[6]}" if self._through else "")
        )
        net.lead_via(FRONT)
        if self._through:
            net.answer_by(BACK)
        for member in self._members:
            self._hardware[member.number] = _hardware(member)
        if self.options.method.conntracked:
            for member in self._members:
                member.host.sysctl(conntrackd.LIBERAL)
            if self._has_conntrackd:
                self._sync = Conntrackd()
                self._print(
                    "   conntrackd gives each kernel the connections of the other"
                    " ([cyan]conntrackd.conf[/])"
                )
            else:
                self._print(
                    "   [yellow]conntrackd is not installed: connections continue because the"
                    " other balancer adopts them by the hash of [cyan]strategy: maglev[/]; with"
                    " other strategies they would break[/]"
                )
        with interrupts.deferred():
            for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                with net.router.entered():
                    self._probes[family] = socket.socket(kind, socket.SOCK_DGRAM)
            if self._has_keepalived:
                self._mover = Keepalived(through=self._through)
            else:
                self._mover = OwnVrrp(beats_to_router(net), through=self._through)

    def _begin(self, member: Member) -> None:
        assert self._mover is not None  # noqa: S101 - by _prepare
        if self._sync is not None:
            self._sync.begin(member)
        self._mover.begin(member)

    def _cut(self, member: Member) -> None:
        assert self._mover is not None  # noqa: S101 - by _prepare
        self._mover.cut(member)
        if self._sync is not None:
            self._sync.cut(member)

    def _await(self, since: float, *, out: bool) -> float:
        wanted = self._hardware[3 - self.victim if out else self.victim]
        deadline = time.monotonic() + TIMEOUT
        while True:
            # Only what the router sends to has an entry.
            for family, probe in self._probes.items():
                with contextlib.suppress(OSError):
                    probe.sendto(b"", (FRONT[family], _DISCARD))
            known = neighbours(
                execute(["ip", "-n", self._net.router.name, "-json", "neigh", "show"]).stdout
            )
            if all(known.get(address) == wanted for address in FRONT.values()):
                return time.monotonic() - since
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"the addresses have not moved within {TIMEOUT:g} s",
                    "see keepalived.log and daemon.log of the balancers",
                )
            time.sleep(_POLL)

    def _close(self) -> None:
        if self._mover is not None:
            self._mover.close()
        for probe in self._probes.values():
            probe.close()


def neighbours(text: str) -> dict[str, str]:
    """The hardware addresses by address, of the output of `ip -json neigh show`."""
    rows = json.loads(text or "[]")
    return {row["dst"]: row["lladdr"] for row in rows if "lladdr" in row}


def _hardware(member: Member) -> str:
    (link,) = json.loads(
        execute(["ip", "-n", member.host.name, "-json", "link", "show", "dev", "eth0"]).stdout
    )
    return str(link["address"])
