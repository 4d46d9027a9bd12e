"""The fingerprint of a service: what changes it, and what does not."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from paraglider.core import fingerprint as module
from paraglider.core.fingerprint import DIGITS, fingerprint
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend, Pool, State
from paraglider.core.strategies import KINDS, Context

VIP = bytes([192, 0, 2, 1])
WEB: Any = (VIP, (TCP,), ((80, 80), (8000, 8010)))


def backends() -> list[Backend]:
    """Three of them, of which one has another port and weight."""
    return [
        Backend("10.0.0.1", bytes([10, 0, 0, 1])),
        Backend("10.0.0.2:8080", bytes([10, 0, 0, 2]), 8080, 3),
        Backend("10.0.0.3", bytes([10, 0, 0, 3])),
    ]


def printed(strategy: str = "maglev", members: list[Backend] | None = None, **other: Any) -> str:
    """The fingerprint of a service that differs by ``other``."""
    context = Context(seed=other.get("seed", 7), parameters=other.get("parameters", {}))
    return fingerprint(
        other.get("destination", WEB),
        strategy,
        context,
        Pool(backends() if members is None else members, all_down=other.get("all_down", "reject")),
        affinity=other.get("affinity", False),
    )


def test_what_decides_changes_it() -> None:
    """Each of them alone."""
    heavier, moved, one = backends(), backends(), backends()
    heavier[0].full_weight = 2
    moved[0].port = 81
    one[2].state = State.DRAIN
    found = [
        printed(),
        printed("source"),
        printed(seed=8),
        printed(parameters={"table_size": 251}),
        printed(affinity=True),
        printed(destination=(bytes([192, 0, 2, 2]), *WEB[1:])),
        printed(destination=(VIP, (TCP, UDP), WEB[2])),
        printed(destination=(VIP, (TCP,), ((80, 80),))),
        printed(members=heavier),
        printed(members=moved),
        printed(members=one),
        printed(members=[]),
    ]
    assert len(set(found)) == len(found)
    assert {len(each) for each in found} == {DIGITS}
    assert all(set(each) <= set("0123456789abcdef") for each in found)


def test_what_does_not_decide_is_no_part_of_it() -> None:
    """Names, the order of a hash's backends, a default that is written out, a down backend."""
    renamed = backends()
    renamed[0].name = "a"
    down = [*backends(), Backend("10.0.0.4", bytes([10, 0, 0, 4]))]
    down[3].state = State.DOWN
    weightless = [*backends(), Backend("10.0.0.4", bytes([10, 0, 0, 4]), 0, 0)]
    for same in (
        printed(members=renamed),
        printed(members=backends()[::-1]),
        printed(members=down),
        printed(members=weightless),
        printed(parameters={"table_size": 65537}),
        printed(destination=(*WEB[:2], WEB[2][::-1])),
        printed(all_down="use_all"),
    ):
        assert same == printed()


def test_all_down() -> None:
    """With ``use_all`` the failed backends take new flows, and decide."""
    dead = backends()
    for each in dead:
        each.state = State.DOWN
    assert printed(members=dead, all_down="use_all") == printed()
    assert printed(members=dead, all_down="reject") == printed(members=[])


@pytest.mark.parametrize("strategy", sorted(KINDS))
def test_strategies_ignore_what_they_ignore(strategy: str) -> None:
    """A seed, weights and the order of the backends decide with some strategies only."""
    chooses = KINDS[strategy]
    heavier = backends()
    heavier[0].full_weight = 2
    assert (printed(strategy) == printed(strategy, seed=8)) == (not chooses.uses_seed)
    assert (printed(strategy) == printed(strategy, heavier)) == (not chooses.weighs)
    assert (printed(strategy) == printed(strategy, backends()[::-1])) == chooses.hashes


def test_a_policy() -> None:
    """Its name and its parameters, also a date as YAML reads it."""
    own = "mine:Class"
    parameters = {"since": date(2026, 1, 1), "levels": 3}
    assert printed(own) != printed("other:Class")
    assert printed(own) != printed(own, seed=8)
    assert printed(own, parameters={"levels": 3}) != printed(own, parameters={"levels": 4})
    assert len(printed(own, parameters=parameters)) == DIGITS


def test_a_release_that_hashes_otherwise_has_other_fingerprints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two balancers of two releases choose differently then, though their files are the same."""
    before = printed()
    module._version_of.cache_clear()
    monkeypatch.setattr(KINDS["maglev"], "entry", lambda self, flow: flow.client_port % self.size)
    try:
        assert printed() != before
    finally:
        module._version_of.cache_clear()
