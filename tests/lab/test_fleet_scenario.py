"""Several active balancers: what each of their files has, and what is said about the method."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from paraglider.errors import OperatorError
from paraglider.forward.load import parse
from paraglider.lab.fleet_scenario import FleetLab
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import FORWARDS

OPTIONS = {"balancers": 3, "connections": 60}


def lab(forward: str, *, has_bird: bool = True) -> tuple[FleetLab, io.StringIO]:
    """A lab that does not run, and its output."""
    output = io.StringIO()
    console = Console(file=output, width=300)
    made = FleetLab(LabOptions(forward, **OPTIONS), console, has_bird=has_bird)
    made._configuration(frozenset({0}))
    return made, output


def test_a_fleet_without_a_number() -> None:
    """It is given by the option."""
    with pytest.raises(OperatorError, match="needs their number; --balancers 3"):
        FleetLab(LabOptions(), Console())


@pytest.mark.parametrize("has_bird", [True, False])
@pytest.mark.parametrize("forward", FORWARDS)
def test_the_files(forward: str, has_bird: bool) -> None:
    """Each is valid, and announces both VIPs by BIRD or by ExaBGP's lines; they differ in a
    balancer's own addresses and paths only.
    """
    made, _ = lab(forward, has_bird=has_bird)
    first, second = (made._document(number) for number in (1, 2))
    for each in (first, second):
        loaded = parse(json.dumps(each), "f")
        assert len(loaded.config.announced) == 2
        assert each["announce"]["via"] == ("bird" if has_bird else "exabgp")
    differing = {key for key in first if first[key] != second[key]}
    own = {"chroot", "control", "network"} | ({"announce"} if has_bird else set())
    assert differing == own | ({"services"} if forward == "offload" else set())


@pytest.mark.parametrize("found", [None, "/usr/sbin/bird"])
def test_bird_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    """And the output says that it is, or why not."""
    monkeypatch.setattr("shutil.which", lambda _: found)
    made = FleetLab(LabOptions("dsr", **OPTIONS), Console())
    assert made._has_bird is bool(found)
    assert ("BIRD is not installed" in made.beside) is not bool(found)


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
