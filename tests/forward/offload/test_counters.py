"""The kernel's counters of offloaded flows since the daemon's start,
also if tables are recreated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.offload.counters import KernelCounters
from paraglider.netfilter.nfnetlink import CounterValue
from paraglider.netfilter.rules.marks import backend_marks

A, B = "10.0.0.1", "10.0.0.2"


def offloading(*backends: str, **more: Any) -> Config:
    """One service, ``web``, over ``backends``."""
    service = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
    return Config.model_validate({"services": [service | {"backends": list(backends)} | more]})


class Tables:
    """The counters of the kernel's tables."""

    def __init__(self) -> None:
        marks = backend_marks(offloading(A, B))["web"]
        self.mark = dict(zip((A, B), marks, strict=True))
        self.counts: dict[int, dict[str, CounterValue]] = {}
        self.broken = False
        self.times = 0

    def count(self, backend: str, packets: int, *, way: str = "requests") -> None:
        """The counter stands at ``packets``, of 100 bytes each."""
        found = self.counts.setdefault(self.mark[backend], {})
        found[way] = CounterValue(packets, 100 * packets)

    def read(self, family: int) -> Mapping[int, Mapping[str, CounterValue]]:
        """As the kernel's."""
        self.times += 1
        if self.broken:
            raise OSError(11, "try again")
        return self.counts if family == 4 else {}


@pytest.fixture
def tables() -> Tables:
    """Tables that have counted before the daemon began."""
    found = Tables()
    found.count(A, 1000)
    found.count(B, 1000, way="replies")
    return found


def test_only_what_came_since_the_beginning(tables: Tables) -> None:
    """Each direction separately, and the sums of the service."""
    carried = KernelCounters(offloading(A, B), tables.read)
    assert set(carried.backend(("web", A)).values()) == {0}
    tables.count(A, 1007)
    tables.count(B, 1002, way="replies")
    tables.counts[0x51FFFFFF] = {"requests": CounterValue(5, 5)}  # another's
    carried.update(2.0)
    wanted = {"packets_in": 7, "bytes_in": 700, "packets_out": 0, "bytes_out": 0, "adopted": 0}
    assert carried.backend(("web", A)) == wanted
    wanted |= {"packets_out": 2, "bytes_out": 200}
    assert carried.service("web") == wanted
    assert carried.backend(("other", A)) == carried.service("other") == {}


def test_nothing_is_read_where_nothing_is_offloaded(tables: Tables) -> None:
    """The backend has no counters."""
    tables.times = 0
    plain = KernelCounters(offloading(A, forward="nat"), tables.read)
    plain.update(500.0)
    assert tables.times == 0
    assert plain.backend(("web", A)) == {}


def test_counters_of_a_recreated_table(tables: Tables) -> None:
    """Its counters start at 0, the shown ones continue; counters that cannot be read keep their
    value.
    """
    carried = KernelCounters(offloading(A, B), tables.read)
    tables.count(A, 1010)
    carried.update(10.0)
    tables.count(A, 4)
    carried.update(20.0)
    assert carried.backend(("web", A))["packets_in"] == 14
    tables.broken = True
    tables.count(A, 5)
    carried.update(30.0)
    assert carried.backend(("web", A))["packets_in"] == 14
    tables.broken = False
    carried.update(40.0)
    assert carried.backend(("web", A))["packets_in"] == 15


def test_a_backend_that_left_leaves_its_part(tables: Tables) -> None:
    """The service keeps its counts; a backend that returns starts at 0."""
    carried = KernelCounters(offloading(A, B), tables.read)
    tables.count(A, 1003)
    tables.count(B, 4)
    carried.update(10.0)
    carried.apply_config(offloading(A))
    assert carried.backend(("web", B)) == {}
    assert carried.service("web")["packets_in"] == 7
    del tables.counts[tables.mark[B]]
    carried.update(20.0)
    carried.apply_config(offloading(A, B))
    tables.count(B, 2)
    carried.update(30.0)
    assert carried.backend(("web", B))["packets_in"] == 2
    assert carried.service("web")["packets_in"] == 9


def test_live_flows_are_shown_if_known(tables: Tables) -> None:
    """For backends with live counts, and their sum for a service."""
    carried = KernelCounters(offloading(A, B), tables.read)
    assert "flows" not in carried.service("web")
    carried.count({tables.mark[A]: (3, 2), 0x51FFFFFF: (9, 9)})
    assert carried.backend(("web", A))["flows"] == 3
    assert carried.backend(("web", A))["inactive"] == 2
    assert not {"flows", "inactive"} & set(carried.backend(("web", B)))
    carried.count({tables.mark[A]: (3, 2), tables.mark[B]: (0, 5)})
    assert carried.backend(("web", B))["flows"] == 0
    assert carried.service("web")["flows"] == 3
    assert carried.service("web")["inactive"] == 7
