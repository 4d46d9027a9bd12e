"""Balancers side by side: who differs, in what, and what that does to a change."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.daemon.web.fleet import Fleet, outliers
from paraglider.host.remote import Unreached

FLOWS = {"flows": 5, "rates": {"conns": 2.0}}


def status(
    *, version: str = "1.0", drained: bool = False, digests: Any = None, **backends: Any
) -> dict[str, Any]:
    """A balancer's answer with one service; ``backends`` are states by the last byte, and
    ``service`` what its row has besides.
    """
    states = {"b1": "ready", "b2": "ready", **backends}
    service = states.pop("service", {})
    rows = [
        {"service": "web", "backend": f"10.0.0.{key[1:]}", "state": value, "weight": 1}
        for key, value in states.items()
    ]
    row = {"service": "web", "ready": 2, "backends": len(rows), "fingerprint": "aa", **FLOWS}
    return {
        "services": [{**row, "return": "direct", **service}],
        "backends": rows,
        "node": {"state": "drain" if drained else "ready"},
        "health": {"status": "healthy"},
        "daemon": {"version": version},
        "config": {"digests": {"seed": "s", "services": "f"} if digests is None else digests},
    }


def fleet(*statuses: Any) -> Fleet:
    """Balancers called lb1, lb2, …"""
    return Fleet({f"lb{n}": each for n, each in enumerate(statuses, start=1)})


def differs(*statuses: Any) -> list[list[str]]:
    """What is marked in each row."""
    return [row["differs"] for row in fleet(*statuses).service_rows()]


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        ("", ""),
        ("x", ""),
        ("xxx", ""),
        ("xxy", "2"),
        ("yxx", "0"),
        ("xy", "01"),
        ("xxyy", "0123"),
        ("xyz", "012"),
        ("xxyz", "0123"),
        ("xxxyz", "34"),
    ],
)
def test_who_differs(values: str, odd: str) -> None:
    """The others than most; everybody where there is no majority."""
    assert outliers({str(n): value for n, value in enumerate(values)}) == set(odd)


def test_equal_balancers() -> None:
    """Nothing is marked, and nothing found."""
    assert differs(status(), status(), status()) == [[], [], []]
    assert list(fleet(status(), status()).findings()) == []


def test_what_is_marked() -> None:
    """A fingerprint, a state, a weight, a backend or service that others have, a version, a drain;
    of the balancer that is alone with it.
    """
    heavy = status()
    heavy["backends"][1]["weight"] = 9
    without = status()
    without["services"] = without["backends"] = []
    for odd, words in (
        (status(service={"fingerprint": "bb"}, b2="down"), ["fingerprint bb", "10.0.0.2 down"]),
        (heavy, ["10.0.0.2 weight 9"]),
        (status(b3="ready"), ["10.0.0.3 ready"]),
        (without, ["no such service"]),
        (status(version="0.9"), ["version 0.9"]),
        (status(drained=True), ["drained"]),
    ):
        assert differs(status(), odd, status()) == [[], words, []]
    fewer = differs(status(b3="ready"), status(), status(b3="ready"))
    assert fewer == [[], ["10.0.0.3 missing"], []]


def test_who_announces() -> None:
    """Whose VIP is not announced, where others' is; a file without `announce` says nothing."""
    well, ill = ({"203.0.113.11": {"announce": told}} for told in (True, False))
    vip = {"vip": "203.0.113.11"}
    one, two, three = (
        {**status(service=vip), "announced": told}
        for told in (well, {**ill, "192.0.2.1": {"announce": True}}, well)
    )
    assert differs(one, two, three) == [[], ["not announced"], []]
    assert differs(one, two) == [[], ["not announced"]]
    rows = fleet(one, two, status(service=vip)).service_rows()
    assert [row["announced"] for row in rows] == [True, False, None]


def test_two_that_differ() -> None:
    """Both are marked, each with what it has."""
    assert differs(status(b1="down"), status()) == [["10.0.0.1 down"], ["10.0.0.1 ready"]]


def test_an_older_version() -> None:
    """It has no fingerprint and no digests, which is no difference besides the version's."""
    old = status(version="0.9", digests={})
    del old["services"][0]["fingerprint"], old["services"][0]["return"]
    assert differs(status(), old, status()) == [[], ["version 0.9"], []]
    (finding,) = fleet(status(), old, status()).findings()
    assert finding.what == "version"
    assert "1.0 on lb1, lb3; 0.9 on lb2" in finding.line


def test_what_is_found() -> None:
    """Seeds and other sections by themselves, and new flows of a service."""
    odd = status(b2="down", digests={"seed": "t", "services": "g"}, service={"fingerprint": "bb"})
    lines = [each.line for each in fleet(status(), status(), odd).findings()]
    assert lines == [
        "`seed` of the file: s on lb1, lb2; t on lb3; write the same `seed` in each file",
        "`services` of the file: f on lb1, lb2; g on lb3; make the files or backend lists equal",
        "web: new flows: as most on lb1, lb2; fingerprint bb, 10.0.0.2 down on lb3; compare states",
    ]
    (drained,) = [list(fleet(status(), status(drained=True)).findings())]
    assert drained == []


BROKEN: list[dict[str, Any]] = [
    {"services": 3},
    {"services": [3]},
    {"services": [{"service": "web"}]},
    {"services": [{"service": [], "ready": 1}]},
    {"services": [{"service": "web", "ready": 1, "rates": 3}]},
    {"backends": [{"service": "web", "backend": "a"}]},
    {"backends": None},
    {"node": {}},
    {"node": {"state": {}}},
    {"health": 1},
    {"daemon": {"version": []}},
    {"config": None},
    {"config": {"digests": {"seed": []}}},
    {"announced": 3},
    {"announced": {"192.0.2.1": {}}},
]


@pytest.mark.parametrize(
    "answer",
    [Unreached("Connection refused"), [], {"services": []}, None, *BROKEN],
    ids=str,
)
def test_a_balancer_without_a_status(answer: Any) -> None:
    """It is a row with the reason, and others are compared without it."""
    if answer in BROKEN:
        answer = {**status(), **answer}
    found = fleet(status(), answer)
    (row,) = (row for row in found.node_rows() if row["error"])
    assert (row["node"], bool(row["error"])) == ("lb2", True)
    assert [row["node"] for row in found.service_rows()] == ["lb1"]
    problem = found.obstacle("web", "10.0.0.1", "ready")
    assert problem is not None
    assert str(problem).startswith(f"lb2: {row['error']}; nothing was changed")


def test_a_second_change() -> None:
    """Where the balancer sees no answers, one backend at a time; any other one may."""
    for direction, state, refused in (
        ("direct", "drain", True),
        ("direct", "drain-down", True),
        ("direct", "maint", False),
        ("direct", "down", False),
        ("via", "drain", False),
    ):
        found = fleet(status(), status(b2=state, service={"return": direction}))
        problem = found.obstacle("web", "10.0.0.1", "drain")
        assert (problem is not None) == refused
        if problem is not None:
            assert "10.0.0.2 of web drains at lb2" in str(problem)
        assert found.obstacle("web", "10.0.0.1", "ready") is None
        assert found.obstacle("web", "10.0.0.2", "drain") is None
        assert (found.obstacle("web", "10.0.0.1", "maint") is not None) == refused


def test_a_second_change_by_an_older_version() -> None:
    """It does not say which way the answers go: perhaps past it."""
    old = status(b2="drain")
    del old["services"][0]["return"]
    assert fleet(status(), old).obstacle("web", "10.0.0.1", "drain") is not None


@pytest.mark.parametrize(("service", "backend"), [("web", "10.0.0.3"), ("mail", "10.0.0.1")])
def test_a_backend_that_one_has_not(service: str, backend: str) -> None:
    """Before anything is changed at another."""
    problem = fleet(status(), status()).obstacle(service, backend, "drain")
    assert problem is not None
    assert f"lb1 has no backend {service}/{backend}" in str(problem)
