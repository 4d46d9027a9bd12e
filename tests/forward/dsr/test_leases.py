"""The table of leases: its golden text (``golden/dsr.leases4``, ``6``), and that nft takes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from paraglider.config.model import Config, TimeoutsConfig
from paraglider.forward.dsr.leases import LONGEST, lease_seconds, lease_table
from paraglider.forward.dsr.marks import route_marks
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.marks import LEASE

GOLDEN = Path(__file__).parents[1] / "golden"


def config() -> Config:
    """The golden configuration."""
    document = yaml.safe_load((GOLDEN / "dsr.yaml").read_text(encoding="utf-8"))
    del document["cores"]
    return Config.model_validate(document)


def text(family: int) -> str:
    """The table of the golden configuration."""
    found = lease_table(config(), family)
    assert found is not None
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_the_text_is_the_golden_one(family: int) -> None:
    """The text equals the reviewed file, byte for byte."""
    file = GOLDEN / f"dsr.leases{family}"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text(family), encoding="utf-8")
    assert text(family) == file.read_text(encoding="utf-8")


def test_other_forwards_have_none() -> None:
    """A family without a dsr service has no table."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    assert lease_table(Config.model_validate({"services": [service]}), 4) is None
    six = config().for_families(frozenset({6}))
    assert lease_table(six, 4) is None


def test_every_backend_once() -> None:
    """One set and one rule per chain, for any number of services."""
    for mark in route_marks(config(), 4).values():
        name = f"to-{mark:08x}"
        lines = [line for line in text(4).splitlines() if name in line]
        assert [line.split()[1] for line in lines] == ["set", "rule", "rule", "rule"]
        assert not mark & LEASE


def test_base_chains_are_never_deleted() -> None:
    """Removing one would drop all packets that wait in a queue of the namespace."""
    verbs = {line.split()[0] for family in (4, 6) for line in text(family).splitlines()}
    assert verbs == {"add", "flush"}


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [({}, LONGEST), ({"udp": 20}, 10), ({"established": 1}, 1), ({"established": 61}, 30)],
)
def test_how_long_a_lease_lasts(changes: dict[str, int], seconds: int) -> None:
    """At most half of the shortest timeout, so that a live flow reaches the worker in time."""
    assert lease_seconds(TimeoutsConfig(**changes)) == seconds


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_takes_it(family: int) -> None:
    """Twice: the second time it changes the existing table."""
    assert Nft().trial(text(family)) == ""
    assert Nft().trial(text(family) * 2) == ""
    assert Nft().trial("add nonsense\n") != ""
