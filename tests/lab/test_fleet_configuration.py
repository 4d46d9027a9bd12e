"""The files of several balancers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from paraglider.config.service import METHODS
from paraglider.forward.load import load
from paraglider.lab import direct
from paraglider.lab.fleet_configuration import (
    announced,
    by_lines,
    changes_for,
    fleet_document,
)
from paraglider.lab.several_scenario import FORWARDS


def written(path: Path, number: int, forward: str, *, pair: bool = False) -> Path:
    """The file of balancer ``number``."""
    changes = {} if pair else changes_for(METHODS[forward], number)
    document = fleet_document(number, path, (0, 0), backends=4, forward=forward, **changes)
    file = path / f"{number}.conf"
    file.write_text(yaml.safe_dump(document if pair else announced(document, **by_lines())))
    return file


@pytest.mark.parametrize("pair", [True, False])
@pytest.mark.parametrize("forward", FORWARDS)
def test_the_files_are_valid(tmp_path: Path, forward: str, pair: bool) -> None:
    """A service a family, by a hash that is the same on all; only addresses differ."""
    one, two = (load(written(tmp_path, number, forward, pair=pair)) for number in (1, 2))
    assert [(s.name, s.forward, len(s.backends)) for s in one.services] == [
        ("web4", forward, 4), ("web6", forward, 4),
    ]  # fmt: skip
    assert {(s.strategy, s.seed, s.adopts) for c in (one, two) for s in c.services} == {
        ("maglev", 7, one.services[0].snat is None)
    }


@pytest.mark.parametrize(
    ("forward", "needed"), [("nat", True), ("dsr", True), ("tunnel", True), ("offload", False)]
)
def test_backends_that_answer_directly_have_a_set_up(
    tmp_path: Path, forward: str, needed: bool
) -> None:
    """With several active balancers `nat` is one of them."""
    assert direct.needed(written(tmp_path, 1, forward)) is needed
    assert direct.needed(written(tmp_path, 1, forward, pair=True)) is (needed and forward != "nat")


def test_answers_come_to_the_balancer_that_has_the_flow(tmp_path: Path) -> None:
    """With `offload` by its own address."""
    for number in (1, 2):
        config = load(written(tmp_path, number, "offload"))
        assert [str(service.snat) for service in config.services] == [
            f"10.0.0.20{number}", f"fd00:10::20{number}",
        ]  # fmt: skip


def test_changes_by_family(tmp_path: Path) -> None:
    """A dictionary by family, and keys that are left out."""
    document = fleet_document(1, tmp_path, (0, 1), ports={4: 80, 6: 81}, seed=None)
    assert [service["ports"] for service in document["services"]] == [80, 81]
    assert all("seed" not in service for service in document["services"])
    assert document["network"]["public"] == {"interface": "lo"}
