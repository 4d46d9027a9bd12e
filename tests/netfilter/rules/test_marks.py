"""Marks do not depend on the file's order, are unique, and are recognizable as ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.netfilter.rules import marks
from paraglider.netfilter.rules.marks import BASE, MASK, backend_marks


def service(name: str, **changes: Any) -> dict[str, Any]:
    """An offload service of two backends; one called with a number has a port of that number."""
    port = 80 + int(name[1:] or 0) if name[1:].isdigit() else 80
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "ports": port, "forward": "offload"}
    return {"name": name, **base, "backends": ["10.0.0.1", "10.0.0.2"], **changes}


def config(*services: dict[str, Any]) -> Config:
    """A configuration of these services; contradictions are not checked."""
    return Config.model_validate({"services": list(services)})


def by_backend(parsed: Config) -> dict[tuple[str, str], int]:
    """(service, address) → mark."""
    found = backend_marks(parsed)
    return {
        (s.name, str(b.address)): mark
        for s in parsed.services
        if s.name in found
        for b, mark in zip(s.backends, found[s.name], strict=True)
    }


@given(st.permutations(range(6)), st.booleans())
def test_order_and_spelling_do_not_matter(order: list[int], backwards: bool) -> None:
    """Services and backends in another order, and the service's port written out: same marks."""
    plain = by_backend(config(*(service(f"s{i}") for i in range(6))))

    def spelled(number: int) -> dict[str, Any]:
        backends = [{"address": "10.0.0.1", "port": 80 + number}, "10.0.0.2"]
        return service(f"s{number}", backends=backends[::-1] if backwards else backends)

    assert plain == by_backend(config(*map(spelled, order)))


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"ports": [80, 443]}, {"ports": [443, 80]}, {"ports": "80-90"}]
)
def test_a_service_that_stays_keeps_its_marks(changes: dict[str, Any]) -> None:
    """A renamed service, or one with more ports, keeps its flows."""
    (before,) = backend_marks(config(service("a"))).values()
    (after,) = backend_marks(config({**service("a"), **changes})).values()
    assert after == before


def test_services_of_one_vip_are_apart() -> None:
    """One service on some ports and one on all others, with the same backends."""
    found = backend_marks(config(service("a", ports=1), service("b", ports="1-65535")))
    assert not set(found["a"]) & set(found["b"])


def test_another_family_changes_nothing() -> None:
    """With -4 the worker computes from half of the file; the set-up may have used all of it."""
    six = service("six", vip="2001:db8::11/64", backends=["fd00:10::1"])
    both = config(service("four"), six)
    assert backend_marks(both) == {
        **backend_marks(both.for_families(frozenset({4}))),
        **backend_marks(both.for_families(frozenset({6}))),
    }


def test_only_offload_has_marks() -> None:
    """The backends of other forwards have none."""
    assert set(backend_marks(config(service("a"), service("b", forward="nat")))) == {"a"}


def test_marks_are_ours_and_apart() -> None:
    """A thousand backends of many services: as many marks, all with the bits in common."""
    backends = [f"10.0.{i}.{j}" for i in range(10) for j in range(1, 11)]
    found = backend_marks(config(*(service(f"s{i}", backends=backends) for i in range(10))))
    every = [mark for of_service in found.values() for mark in of_service]
    assert len(set(every)) == len(every) == 1000
    assert all(mark & MASK == BASE for mark in every)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_collisions_are_resolved_whatever_the_order(
    monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    """In a space as small as the number of backends all collide, and all get different marks."""
    monkeypatch.setattr(marks, "_SPACE", 6)
    found = by_backend(config(*(service(f"s{i}") for i in order)))
    assert sorted(found.values()) == [BASE + i for i in range(6)]
    assert found == by_backend(config(*(service(f"s{i}") for i in range(3))))
