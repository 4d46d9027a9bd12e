"""Several active balancers: what each of their files has, and what is said about the method."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from paraglider.errors import OperatorError
from paraglider.forward.load import parse
from paraglider.lab.fleet_scenario import FleetLab
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import FORWARDS

OPTIONS = {"balancers": 3, "connections": 60}


def lab(forward: str) -> tuple[FleetLab, io.StringIO]:
    """A lab that does not run, and its output."""
    output = io.StringIO()
    made = FleetLab(LabOptions(forward, **OPTIONS), Console(file=output, width=300))
    made._configuration(frozenset({0}))
    return made, output


def document(forward: str, number: int) -> dict[str, Any]:
    """The file of balancer ``number``."""
    return lab(forward)[0]._document(number)


def test_a_fleet_without_a_number() -> None:
    """It is given by the option."""
    with pytest.raises(OperatorError, match="needs their number; --balancers 3"):
        FleetLab(LabOptions(), Console())


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_files(forward: str) -> None:
    """Each is valid, and announces both VIPs by ExaBGP's lines; they differ in a balancer's own
    addresses and paths only.
    """
    first, second = (document(forward, number) for number in (1, 2))
    for each in (first, second):
        loaded = parse(json.dumps(each), "f")
        assert len(loaded.config.announced) == 2
        assert each["announce"]["via"] == "exabgp"
    differing = {key for key in first if first[key] != second[key]}
    own = {"chroot", "control", "network"}
    assert differing == own | ({"services"} if forward == "offload" else set())


@pytest.mark.parametrize(
    ("forward", "key", "words"),
    [
        ("nat", "return", "The services have return: direct"),
        ("offload", "snat", "flows that the router moves to another one break"),
        ("dsr", None, ""),
        ("tunnel", None, ""),
    ],
)
def test_what_the_method_needs(forward: str, key: str | None, words: str) -> None:
    """Answers that come to the right balancer, or to none; and it is said."""
    made, output = lab(forward)
    made._explain()
    assert words in output.getvalue()
    assert bool(output.getvalue()) == bool(words)
    for service in made._document(2)["services"]:
        assert service.keys() & {"return", "snat"} == ({key} if key else set())
