"""``paraglider lab --balancers N``: all are active, and one goes and returns in every way.

Lives here: ``FleetLab``, a run of the lab with this scenario.
Rules: as in ``several_scenario``. The router's routes are those that `paraglider announce --exabgp`
prints (``fleet_router``).
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from typing import Any

from rich.console import Console

from paraglider.errors import OperatorError
from paraglider.lab.fleet_configuration import announced, changes_for
from paraglider.lab.fleet_router import FleetRouter, beats_to_router
from paraglider.lab.fleet_topology import FleetTopology
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.member import Member
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import ACTS, SeveralLab


class FleetLab(SeveralLab):
    """One run with ``options.balancers`` balancers."""

    option = "--balancers"
    victim = 2
    beside = (
        "beside each [cyan]paraglider announce --exabgp[/], whose lines are the router's routes (no"
        " BGP program is needed)"
    )

    def __init__(self, options: LabOptions, console: Console, acts: Collection[str] = ACTS) -> None:
        if options.balancers is None:
            raise OperatorError("the lab of several balancers needs their number", "--balancers 3")
        self.count = options.balancers
        super().__init__(options, console, acts)
        self._router: FleetRouter | None = None
        self._announcers: dict[int, subprocess.Popen[bytes]] = {}

    def _document(self, number: int) -> dict[str, Any]:
        return announced(self._file(number, **changes_for(self.options.method, number)))

    def _prepare(self, net: FleetTopology, interrupts: Interrupts) -> None:
        self._print(
            "   The router hears from each ten times a second; three times nothing, and its routes"
            " go, as with BFD"
        )
        self._explain()
        with interrupts.deferred():
            self._router = FleetRouter(net, beats_to_router(net))
            self._router.start()

    def _explain(self) -> None:
        """Print what the method means for several active balancers."""
        method = self.options.method
        if method.conntracked:
            self._print(
                "   [yellow]Each balancer's kernel has its own flows, and backends answer it by its"
                " own address ([cyan]snat[/]): flows that the router moves to another one break."
                " [cyan]--pair[/] keeps them, and so do the other methods here[/]"
            )
        elif method.owns_vip:
            self._print(
                "   The services have [cyan]return: direct[/]: answers through a balancer could"
                " come to one that does not have their flow"
            )

    def _begin(self, member: Member) -> None:
        assert self._router is not None  # noqa: S101 - by _prepare
        with (member.directory / "announce.log").open("ab") as log:
            self._announcers[member.number] = member.host.popen(
                [*member.command, "announce", "--exabgp"], stdout=subprocess.PIPE, stderr=log
            )
        self._router.listen(member.number, self._announcers[member.number])

    def _cut(self, member: Member) -> None:
        # With SIGTERM it would withdraw, by a pipe that needs no cable.
        announcer = self._announcers[member.number]
        announcer.kill()
        announcer.wait()

    def _await(self, since: float, *, out: bool) -> float:
        assert self._router is not None  # noqa: S101 - by _prepare
        numbers = set(range(1, self.count + 1)) - ({self.victim} if out else set())
        return self._router.await_hops(numbers, since)

    def _close(self) -> None:
        if self._router is not None:
            self._router.close()
