"""Backends that the file no longer has stay for as long as they have flows."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config import check
from paraglider.config.diagnostics import Problem
from paraglider.config.model import Config
from paraglider.daemon.store.backends import Key
from paraglider.daemon.store.store import Desired


def config(*services: dict[str, Any]) -> Config:
    """A configuration of these services, each on a port of its own."""
    base = {"vip": "192.0.2.1/24", "protocol": "tcp"}
    whole = [
        {"name": f"s{i}", **base, "ports": 80 + i, "backends": [f"10.0.{i}.1"], **s}
        for i, s in enumerate(services)
    ]
    return Config.model_validate({"services": whole})


def merge(before: Config, wanted: Config) -> tuple[Config, frozenset[Key]]:
    """The configuration after ``wanted`` has replaced ``before``, and which backends drain."""
    after = Desired(before).replaced(wanted)
    return after.config, after.keys


TWO = {"backends": ["10.0.0.1", "10.0.0.2"]}


def weights(config: Config) -> dict[str, dict[str, int]]:
    """The weight of every backend."""
    return {s.name: {b.name: b.weight for b in s.backends} for s in config.services}


def test_a_backend_stays_without_weight() -> None:
    """It takes no new flows; the others have the file's weights."""
    merged, leaving = merge(config(TWO), config({}))
    assert leaving == {("s0", "10.0.0.2")}
    assert weights(merged) == {"s0": {"10.0.0.1": 1, "10.0.0.2": 0}}
    again, still = merge(merged, config({}))
    assert (again, still) == (merged, leaving)


def test_a_service_stays_without_weights() -> None:
    """With all its backends, until the last of them is drained."""
    desired = Desired(config({}, TWO)).replaced(config({}))
    assert weights(desired.config)["s1"] == {"10.0.0.1": 0, "10.0.0.2": 0}
    less = desired.ended(frozenset({("s1", "10.0.0.1")}))
    assert weights(less.config)["s1"] == {"10.0.0.2": 0}
    assert less.ended(desired.keys).config == config({})


def test_what_comes_back_has_its_weight() -> None:
    """And no longer drains."""
    merged, _ = merge(config(TWO), config({}))
    assert merge(merged, config(TWO)) == (config(TWO), frozenset())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (({"name": "old"},), ({"name": "new"},)),  # the same VIP and port
        (({"forward": "proxy", **TWO},), ({"forward": "proxy"},)),
        (({"forward": "offload", **TWO},), ({},)),
    ],
)
def test_what_contradicts_the_new_does_not_stay(
    before: tuple[dict[str, Any], ...], after: tuple[dict[str, Any], ...]
) -> None:
    """Nor do backends whose flows need nothing from this host."""
    assert merge(config(*before), config(*after)) == (config(*after), frozenset())


def test_ports_that_were_swapped_keep_their_flows() -> None:
    """Each port has the other's backends now, and its former ones while they have flows."""
    merged, leaving = merge(config({}, {}), config({"ports": 81}, {"ports": 80}))
    assert leaving == {("s0", "10.0.1.1"), ("s1", "10.0.0.1")}
    assert weights(merged) == {
        "s0": {"10.0.0.1": 1, "10.0.1.1": 0},
        "s1": {"10.0.1.1": 1, "10.0.0.1": 0},
    }


@pytest.mark.parametrize("count", [8, 32])
def test_many_changes_are_validated_together(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a few contradictions costs one validation per halving."""
    judged = 0
    real = check.check

    def counted(config: Config) -> list[Problem]:
        nonlocal judged
        judged += 1
        return real(config)

    monkeypatch.setattr(check, "check", counted)
    many = [{"ports": 1000 + n} for n in range(count)]
    merged, leaving = merge(config(*many), config({"name": "new", "ports": 9}))
    assert (judged, len(merged.services), len(leaving)) == (1, count + 1, count)
    judged = 0
    taken = {"name": "taken", "ports": [1, 1003], "protocol": "any", "vip": "192.0.2.1/32"}
    merged, leaving = merge(config(*many), config({"name": "new", "ports": 9}, taken))
    assert {name for name, _ in leaving} == {f"s{n}" for n in range(count) if n != 3}
    assert judged <= 2 * count.bit_length()
