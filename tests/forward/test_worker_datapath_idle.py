"""A worker is idle while BPF carries, no flow is in its tables, and no service waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from paraglider.bpf.maps import CarrierMaps
from paraglider.core.pool import State
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.bpf.context import BpfResources
from paraglider.forward.bpf.loads import SharedLoads
from paraglider.forward.worker_datapath import WorkerDatapath, build
from tests.forward.test_worker_datapath import config, handled

pytestmark = pytest.mark.root

BY_HASH = {"forward": "dsr", "strategy": "maglev", "decide": "hash", "carrier": "bpf"}
NAT = {"carrier": "bpf"}


@pytest.fixture
def resources() -> Iterator[BpfResources]:
    """New maps for one worker."""
    maps = CarrierMaps.create_for_test(16, 1)
    yield BpfResources(maps, 1, 7, SharedLoads(1))
    maps.close()


def settled(resources: BpfResources | None, *services: dict[str, Any]) -> WorkerDatapath:
    """The packet path for these services, after its first ticks."""
    return ticked(build(config(*services), 0, 0.0, resources=resources))


def ticked(path: WorkerDatapath, start: float = 0.0) -> WorkerDatapath:
    """The same after a second of ticks."""
    for tick in range(20):
        path.expire(start + tick / 20, 1000)
        path.sync(start + tick / 20)
    return path


@pytest.mark.parametrize("service", [BY_HASH, NAT], ids=("by-hash", "nat"))
def test_without_flows(resources: BpfResources, service: dict[str, Any]) -> None:
    """As soon as the tables of decisions are written, and all entries are read."""
    path = build(config(service), 0, 0.0, resources=resources)
    assert not path.idle
    assert ticked(path).idle


def test_not_without_bpf() -> None:
    """Carriers of a worker's own may have work at any time."""
    assert not settled(None, {}).idle


def test_not_with_a_flow(resources: BpfResources) -> None:
    """Which may time out, until it is gone."""
    path = settled(resources, NAT)
    handled(path, 80)
    assert not path.idle
    assert not ticked(path, 1.0).idle
    assert ticked(path, 10_000.0).idle


def test_not_while_the_program_reports_flows(resources: BpfResources) -> None:
    """Its ring has room for a tick or two; nor after a change that has it decide."""
    assert not settled(resources, {**NAT, "decide": "auto"}).idle
    before, after = config(NAT), config({**NAT, "decide": "auto"})
    path = ticked(build(before, 0, 0.0, resources=resources))
    path.apply_config(after, before, 0, STRATEGIES)
    assert not ticked(path, 1.0).idle


def test_not_with_another_carrier(resources: BpfResources) -> None:
    """Conntrack's entries are read in time."""
    assert not settled(resources, NAT, {"forward": "offload"}).idle


def test_not_while_backends_change(resources: BpfResources) -> None:
    """The share of one that starts slowly grows, and one that drains ends."""
    path = settled(resources, {**NAT, "slow_start": 10, "strategy": "wrr"})
    assert path.idle
    path.apply_states({"s0": {"10.0.0.1": (State.DOWN, 1), "10.0.0.2": (State.READY, 1)}})
    path.apply_states({"s0": {"10.0.0.1": (State.READY, 1), "10.0.0.2": (State.READY, 1)}})
    assert not ticked(path, 1.0).idle
    assert ticked(path, 20.0).idle


def test_not_with_affinity(resources: BpfResources) -> None:
    """Clients are forgotten in time."""
    assert not settled(resources, {**NAT, "affinity": "client"}).idle


def test_a_table_that_waits(resources: BpfResources) -> None:
    """After a state has changed, until it is written."""
    path = settled(resources, BY_HASH)
    path.apply_states({"s0": {"10.0.0.1": (State.DOWN, 1), "10.0.0.2": (State.READY, 1)}})
    assert not path.idle
    assert ticked(path, 1.0).idle
