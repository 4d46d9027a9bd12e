"""The story of several balancers: options that clash, rows, faults; ``tests/net/test_lab.py`` runs
it.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab import several_scenario
from paraglider.lab.fleet_scenario import FleetLab
from paraglider.lab.flows import NewConnections
from paraglider.lab.pair_scenario import PairLab
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import ACTS, SeveralLab

FLEET = {"balancers": 3, "connections": 60}
PAIR = {"pair": True, "connections": 60}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**FLEET, "pair": True}, "--balancers has several active .* give one of the two options"),
        ({**FLEET, "failover": True}, "-f is for the lab of one .* leave out -f or --balancers"),
        ({**FLEET, "keep": True}, "--keep is for .* leave out --keep or --balancers"),
        ({**PAIR, "keep": True}, "--keep is for .* leave out --keep or --pair"),
        ({**FLEET, "forward": "proxy"}, "no connection of --forward proxy .* with --balancers use"),
        ({**FLEET, "forward": "static"}, "use --forward nat, offload, dsr or tunnel"),
        ({**PAIR, "forward": "tunnel"}, "not shown with --forward tunnel; use .* --balancers 2"),
        ({**PAIR, "forward": "proxy"}, "no connection of --forward proxy .* with --pair use"),
        ({**FLEET, "forward": "offload", "carrier": "bpf"}, "--carrier has no meaning with"),
        ({**FLEET, "connections": 2}, "2 connections cannot reach 3 backends"),
        ({**FLEET, "workers": 4096}, "4096 workers need 4096 neighbouring cores"),
    ],
)
def test_options_that_clash(options: dict[str, Any], message: str) -> None:
    """Before anything is created, with the remedy."""
    kind: type[SeveralLab] = (
        PairLab if options.get("pair") and "balancers" not in options else FleetLab
    )
    with pytest.raises(OperatorError, match=message):
        kind(LabOptions(**options), Console())


class Story(FleetLab):
    """A run without networks: ``breaking`` has the number of flows that break in each event, and
    what happened is remembered.
    """

    def __init__(self, *breaking: int, failing: bool = False, **options: Any) -> None:
        self.output = io.StringIO()
        self.done: list[str] = []
        super().__init__(
            LabOptions("dsr", **FLEET), Console(file=self.output, width=160), **options
        )
        self._members = [Fake(number, self.done) for number in (1, 2, 3)]  # type: ignore[misc]
        self._breaking = list(breaking)
        self._failing = failing

    def _opened(self, net: Any) -> Any:
        return self

    def count_from_now(self) -> None:
        """New connections count from now."""

    def broken(self, _patience: float) -> int:
        """How many flows broke."""
        return self._breaking.pop(0) if self._breaking else 0

    def new_connections(self, _patience: float) -> NewConnections:
        """What was opened."""
        return NewConnections(10, 0, 0.1)

    def _begin(self, member: Any) -> None:
        self.done.append("begin")

    def _cut(self, member: Any) -> None:
        self.done.append("cut")

    def _await(self, since: float, *, out: bool) -> float:
        if self._failing:
            raise PlatformError("the router leads elsewhere")
        self.done.append("out" if out else "in")
        return 0.25

    def rows(self) -> list[tuple[str, int]]:
        """The events and the flows that broke."""
        return [(row.event, row.broken) for row in self._rows]


class Fake:
    """A balancer."""

    def __init__(self, number: int, done: list[str]) -> None:
        self.number = number
        self.balancer = self
        self._done = done

    def trouble(self) -> list[str]:
        """Errors in its log: those of balancer 2 do not count, since it was killed."""
        return ["level=error"] if self.number == 2 else []

    def drain(self, *, until_restart: bool = False) -> None:
        """See ``Member``."""
        self._done.append("drain until restart" if until_restart else "drain")

    def __getattr__(self, name: str) -> Any:
        return lambda: self._done.append(name)


def test_every_event() -> None:
    """In order: what is done to the balancer, and what is awaited."""
    lab = Story()
    lab._story(None)  # type: ignore[arg-type]
    assert [event for event, _ in lab.rows()] == [
        "is killed", "comes back", "loses its power", "is back",
        "is drained", "is ready again", "is restarted (upgrade)",
    ]  # fmt: skip
    assert lab.done == [
        "kill", "out", "start", "in",
        "unplug", "cut", "kill", "out", "plug", "start", "begin", "in",
        "drain", "out", "ready", "in",
        "drain until restart", "out", "await_silence", "restart", "in",
    ]  # fmt: skip
    assert lab._verdict()
    assert "✓ In 7 events no flow broke.\n" in lab.output.getvalue()
    assert "Balancer 2 is restarted (upgrade): 0 of 120 flows broken" in lab.output.getvalue()


def test_some_events() -> None:
    """Only those of the acts that are asked for; flows that break are in their row."""
    lab = Story(0, 3, acts=["drain"])
    lab._story(None)  # type: ignore[arg-type]
    assert lab.rows() == [("is drained", 0), ("is ready again", 3)]
    assert set(ACTS) > {"drain"}
    assert not lab._verdict()
    assert "✗ Flows broke in 1 event.\n" in lab.output.getvalue()


def test_a_router_that_does_not_follow() -> None:
    """It is a fault, and the table has the rows so far."""
    lab = Story(failing=True)
    lab._story(None)  # type: ignore[arg-type]
    assert (lab.rows(), lab._faults) == ([], ["the router leads elsewhere"])
    assert not lab._verdict()
    assert "✗ the router leads elsewhere\n" in lab.output.getvalue()
    assert "no flow broke" not in lab.output.getvalue()


class Flows:
    """Open flows, of which so many are broken whenever it is asked."""

    made: list[Flows]
    breaking: list[int]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.ended = False
        self.made.append(self)

    def broken(self, _patience: float) -> int:
        """The next of the numbers."""
        return self.breaking.pop(0)

    def end(self) -> None:
        """They are closed."""
        self.ended = True


def test_flows_are_opened_anew_when_some_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row counts as many; if they break though nothing happens, it is a fault."""
    monkeypatch.setattr(several_scenario, "OpenFlows", Flows)
    Flows.made, Flows.breaking = [], [0, 0, 5, 0, 1, 2]
    lab = FleetLab(LabOptions("dsr", **FLEET), Console(file=io.StringIO()))
    net: Any = type("Net", (), {"client": None})
    opened = [lab._opened(net) for _ in range(3)]
    first, second = Flows.made
    assert opened == [first, first, second]
    assert (first.ended, second.ended) == (True, False)
    assert first.arguments[3:] == (45, 15)
    assert lab._faults == []
    lab._opened(net)
    assert lab._faults == ["2 flows did not go on though nothing happened"]
