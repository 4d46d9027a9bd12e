"""Tests of ``paraglider.forward.dsr.marks``: by the backend's address, apart, ours at sight."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.dsr import marks
from paraglider.forward.dsr.marks import route_marks
from paraglider.netfilter.rules.marks import BASE, DSR_BASE, LEASE, MASK


def service(name: str, **changes: Any) -> dict[str, Any]:
    """A dsr service."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80, "forward": "dsr"}
    return {"name": name, **base, "backends": ["10.0.0.1", "10.0.0.2"], **changes}


def config(*services: dict[str, Any]) -> Config:
    """A configuration of these services; contradictions are not checked."""
    return Config.model_validate({"services": list(services)})


def ways(*addresses: str, vip: str = "192.168.0.11/24") -> dict[str, int]:
    """The marks of these backends of a dsr service, by their addresses."""
    made = config(service("a", vip=vip, backends=list(addresses)))
    family = 6 if ":" in vip else 4
    assert route_marks(made, 10 - family) == {}
    return {str(address): mark for address, mark in route_marks(made, family).items()}


def test_ways_depend_on_the_address_alone() -> None:
    """Not on the order, the service or its port: packets of all services have one route."""
    assert ways("10.0.0.1", "10.0.0.2") == ways("10.0.0.2", "10.0.0.1")
    several = config(*(service(f"s{i}", ports=i) for i in range(1, 4)))
    found = route_marks(several, 4)
    assert {str(address): mark for address, mark in found.items()} == ways("10.0.0.1", "10.0.0.2")
    assert route_marks(config(service("a", forward="nat")), 4) == {}


def test_ways_are_ours_and_apart() -> None:
    """From each other, from those of the other family, from offload's, and from the lease's bit."""
    four = ways(*(f"10.0.{i}.{j}" for i in range(10) for j in range(1, 101)))
    six = ways(*(f"fd00:10::{i:x}" for i in range(1, 1001)), vip="2001:db8::11/64")
    every = [*four.values(), *six.values()]
    assert len(set(every)) == 2000
    assert all(mark & MASK == DSR_BASE != BASE and not mark & LEASE for mark in every)


def test_ways_that_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a space as small as the number of backends all collide, and all get different marks."""
    monkeypatch.setattr(marks, "LEASE", 3)
    addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    found = ways(*addresses)
    assert sorted(found.values()) == [DSR_BASE + i for i in range(3)]
    assert found == ways(*addresses[::-1])
