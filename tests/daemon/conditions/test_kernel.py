"""The kernel monitor: the number of workers that decide, and what BPF carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.messages import CarrierReading, Reading, SlotCount
from paraglider.daemon.processes.child import Child
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.bpf.slot_names import slot_names
from paraglider.forward.offload.table_monitor import TableMonitor

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}


def test_only_workers_count() -> None:
    """Another process that is ready first does not mean missing workers; the
    end of a worker does.
    """
    config = Config.model_validate({"services": [{**SERVICE, "backends": ["10.0.0.1"]}]})
    worker = Child(WorkerSpec(0, 0, config, 1, 1), pid=77)
    counter = Child(ConntrackCounterSpec(1, None, None, 1, 1, "/var/empty"), pid=78)
    with structlog.testing.capture_logs() as lines:
        monitor = KernelMonitor(TableMonitor((4,), structlog.get_logger(), full=lambda: None))
        monitor.count_workers(counter, [counter])
        assert lines == []
        monitor.count_workers(worker, [counter])
        assert [line["log_level"] for line in lines] == ["error"]


@pytest.mark.parametrize(("lacking", "read"), [("", True), ("no libbpf", False)])
def test_what_bpf_carried_is_read_where_it_can_carry(lacking: str, read: bool) -> None:
    """By the periodic readings; nothing is read on a host that cannot."""
    service = {**SERVICE, "forward": "nat", "carrier": "auto", "backends": ["10.0.0.1"]}
    config = Config.model_validate({"services": [service]})
    slots = {name.hex(): SlotCount(3, 300, 2, 200) for name in slot_names(config)}
    switch, carried = CarrierSwitch(lacking), CarriedCounters(config, CarrierReading())
    monitor = KernelMonitor(carrier=switch, carried=carried)
    asked: list[list[int]] = []

    def answer(families: Iterable[int], then: Callable[[Reading | None], object]) -> None:
        asked.append(list(families))
        then(Reading(carrier=CarrierReading(devices=("eth0",), slots=slots)))

    monitor.reconcile(answer, Conditions())
    assert asked == ([[]] if read else [])
    assert switch.read.devices == (("eth0",) if read else ())
    assert (monitor.traffic({}).of("web", "10.0.0.1")["packets_in"] or 0) == (3 if read else 0)
    monitor.apply_config(
        Config.model_validate({"services": [{**service, "backends": ["10.0.0.2"]}]}), 1
    )
    assert monitor.traffic({}).of("web", "10.0.0.1")["packets_in"] is None
