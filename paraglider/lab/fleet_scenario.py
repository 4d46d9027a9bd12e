"""``paraglider lab --balancers N``: all are active, and one goes and returns in every way.

Lives here: ``FleetLab``, a run of the lab with this scenario.
Rules: as in ``several_scenario``. Where BIRD is installed it runs in the router and in each
balancer, told by `paraglider announce --bird` (``bird``); else the router's routes are those that
`paraglider announce --exabgp` prints (``fleet_router``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.console import Console

from paraglider.errors import OperatorError
from paraglider.lab import bird
from paraglider.lab.bird import Bird
from paraglider.lab.fleet_configuration import announced, by_lines, changes_for
from paraglider.lab.fleet_router import FleetRouter, RouteSource, beats_to_router
from paraglider.lab.fleet_topology import FleetTopology
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.member import Member
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import ACTS, SeveralLab, installed

_BESIDE = {
    True: "beside each BIRD, which [cyan]paraglider announce --bird[/] tells what to announce",
    False: (
        "beside each [cyan]paraglider announce --exabgp[/], whose lines are the router's routes:"
        " BIRD is not installed"
    ),
}
_PREPARED = {
    True: "BIRD in the router, too: BGP brings the routes, and BFD tells of a lost power",
    False: (
        "The router hears from each ten times a second; three times nothing, and its routes go, as"
        " with BFD"
    ),
}


class FleetLab(SeveralLab):
    """One run with ``options.balancers`` balancers; ``has_bird``: whether BIRD is used, by default
    if it is installed.
    """

    option = "--balancers"
    victim = 2

    def __init__(
        self,
        options: LabOptions,
        console: Console,
        acts: Collection[str] = ACTS,
        *,
        has_bird: bool | None = None,
    ) -> None:
        if options.balancers is None:
            raise OperatorError("the lab of several balancers needs their number", "--balancers 3")
        self.count = options.balancers
        super().__init__(options, console, acts)
        self._has_bird = installed(bird.PROGRAM, has_bird)
        self._source: RouteSource | None = None
        self.beside = _BESIDE[self._has_bird]

    def _document(self, number: int) -> dict[str, Any]:
        place = self.directory / f"lb{number}"
        section = bird.section(place) if self._has_bird else by_lines()
        return announced(self._file(number, **changes_for(self.options.method, number)), **section)

    def _prepare(self, net: FleetTopology, interrupts: Interrupts) -> None:
        self._print(f"   {_PREPARED[self._has_bird]}")
        self._explain()
        with interrupts.deferred():
            if self._has_bird:
                self._source = Bird(net, self.directory / "router")
            else:
                router = FleetRouter(net, beats_to_router(net))
                router.start()
                self._source = router

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
        assert self._source is not None  # noqa: S101 - by _prepare
        self._source.begin(member)

    def _cut(self, member: Member) -> None:
        assert self._source is not None  # noqa: S101 - by _prepare
        self._source.cut(member)

    def _await(self, since: float, *, out: bool) -> float:
        assert self._source is not None  # noqa: S101 - by _prepare
        numbers = set(range(1, self.count + 1)) - ({self.victim} if out else set())
        return self._source.await_hops(numbers, since)

    def _close(self) -> None:
        if self._source is not None:
            self._source.close()
