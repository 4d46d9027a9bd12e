"""Counters of backends and services: sums over the workers and the kernel, seen by the client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from paraglider.config.model import Config
from paraglider.daemon.messages import CarrierReading, SlotCount
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.daemon.stats.traffic import TrafficCounters, samples
from paraglider.forward.bpf.slot_names import slot_names
from paraglider.forward.offload.counters import KernelCounters
from paraglider.netfilter.nfnetlink import CounterValue
from paraglider.netfilter.rules.marks import backend_marks

CONFIG = Config.model_validate(
    {
        "services": [
            {
                "name": "all",
                "vip": "192.0.2.1/24",
                "protocol": "udp",
                "forward": "offload",
                "backends": ["10.0.0.1"],
            }
        ]
    }
)


class _Worker(Spec):
    role: ClassVar[str] = "worker"


class Counted:
    """Some numbers of backends of ``service``."""

    def __init__(self, backends: Mapping[str, Mapping[str, int]], service: str = "web") -> None:
        self._backends = backends
        self._service = service

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """See ``counters.CounterSource``."""
        for backend, numbers in self._backends.items():
            yield self._service, backend, numbers


def worker(index: int, **backends: Mapping[str, int]) -> Child:
    """A worker that has counted so much, by backend."""
    counters = Counters()
    CounterWriter(counters, Counted(backends)).tick()
    return Child(_Worker(index, counters=counters))


def test_only_those_that_count_are_read() -> None:
    """By process number; a dead one's counts are included."""
    found = samples([worker(3, a={"conns": 1}), Child(_Worker(4)), worker(5)])
    assert set(found) == {3, 5}


def test_sums_over_the_workers() -> None:
    """An unknown count is None, not 0; a count of one worker is the sum."""
    one = worker(0, a={"conns": 2, "packets_out": 10, "flows": 0}, b={"conns": 7})
    other = worker(1, a={"conns": 3, "packets_back": 4})
    traffic = TrafficCounters(samples([one, other]))
    found = traffic.of("web", "a")
    assert (found["conns"], found["picked"]) == (5, 5)
    assert (found["packets_in"], found["packets_out"]) == (10, 4)
    assert (found["flows"], found["bytes_in"], found["refused"]) == (0, None, None)
    assert traffic.total("web")["conns"] == 12


def test_names_without_counts() -> None:
    """Every counter is there, and is None."""
    traffic = TrafficCounters(samples([worker(0, a={"conns": 2})]))
    for found in (traffic.of("web", "c"), traffic.of("other", "a"), traffic.total("other")):
        assert set(found.values()) == {None}
        assert found.keys() == traffic.of("web", "a").keys()


def test_what_the_kernel_carries_is_traffic_too() -> None:
    """For offloaded services only; live flows as soon as they are known."""
    (mark,) = backend_marks(CONFIG)["all"]
    counted = {mark: {"requests": CounterValue(0, 0)}}
    carried = KernelCounters(CONFIG, lambda family: counted if family == 4 else {})
    counted[mark] = {"requests": CounterValue(7, 700), "replies": CounterValue(9, 900)}
    carried.update(10.0)
    traffic = TrafficCounters(samples([worker(0, a={"packets_out": 10})]), carried)
    found = traffic.total("all")
    assert traffic.of("all", "10.0.0.1") == found
    ways = ("packets_in", "bytes_in", "packets_out", "bytes_out", "flows")
    assert [found[way] for way in ways] == [7, 700, 9, 900, None]
    assert traffic.total("web")["packets_in"] == 10
    carried.count({mark: (4, 6)})
    found = traffic.total("all")
    assert (found["flows"], found["inactive"]) == (4, 6)


def test_what_the_kernel_has_adopted_is_added() -> None:
    """Workers have adopted others: those whose clients went on first. All are connections."""
    (mark,) = backend_marks(CONFIG)["all"]
    counted = {mark: {"adopted": CounterValue(2, 80)}}
    carried = KernelCounters(CONFIG, lambda family: counted if family == 4 else {})
    counted[mark] = {"adopted": CounterValue(5, 200)}
    carried.update(1.0)
    for some, adopted, conns in (({"conns": 4, "adopted": 1}, 4, 7), ({}, 3, 3)):
        counters = Counters()
        CounterWriter(counters, Counted({"10.0.0.1": some}, "all")).tick()
        found = TrafficCounters(samples([Child(_Worker(0, counters=counters))]), carried)
        for numbers in (found.of("all", "10.0.0.1"), found.total("all")):
            assert (numbers["adopted"], numbers["conns"], numbers["picked"]) == (
                adopted,
                conns,
                conns,
            )
            assert numbers["packets_in"] == 0


def test_what_bpf_carries_is_added_to_what_the_workers_count() -> None:
    """A flow's first packets pass a worker; where none has counted yet, the sum is that of BPF."""
    least = {"name": "web", "vip": "192.0.2.1/24", "protocol": "udp"}
    config = Config.model_validate({"services": [{**least, "backends": ["10.0.0.1", "10.0.0.2"]}]})
    carried = CarriedCounters(config, CarrierReading())
    slots = {name.hex(): SlotCount(10, 1000, 20, 2000) for name in slot_names(config)}
    carried.update(CarrierReading(slots=slots))
    one = worker(0, **{"10.0.0.1": {"conns": 1, "packets_out": 2, "bytes_out": 200}})
    traffic = TrafficCounters(samples([one]), None, carried)
    first, second = traffic.of("web", "10.0.0.1"), traffic.of("web", "10.0.0.2")
    assert (first["conns"], first["packets_in"], first["bytes_in"]) == (1, 12, 1200)
    assert (first["packets_out"], first["bytes_out"]) == (20, 2000)
    assert (second["conns"], second["packets_in"]) == (None, 10)
    assert traffic.total("web")["packets_in"] == 22


def test_what_bpf_has_not_seen_is_unknown() -> None:
    """It has counters for replies of dsr too, which never pass this host."""
    least = {"name": "web", "vip": "192.0.2.1/24", "protocol": "udp", "forward": "dsr"}
    config = Config.model_validate({"services": [{**least, "backends": ["10.0.0.1"]}]})
    carried = CarriedCounters(config, CarrierReading())
    (name,) = slot_names(config)
    carried.update(CarrierReading(slots={name.hex(): SlotCount(10, 1000, 0, 0)}))
    found = TrafficCounters({}, None, carried).of("web", "10.0.0.1")
    assert (found["packets_in"], found["bytes_in"]) == (10, 1000)
    assert (found["packets_out"], found["bytes_out"]) == (None, None)
