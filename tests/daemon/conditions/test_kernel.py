"""What the kernel is monitored for: how many workers there are to decide."""

from __future__ import annotations

import structlog

from paraglider.config.model import Config
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.processes.child import Child
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.offload.table_monitor import TableMonitor

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}


def test_only_workers_count() -> None:
    """Another process that is ready first does not tell of missing workers; a worker's end does."""
    config = Config.model_validate({"services": [{**SERVICE, "backends": ["10.0.0.1"]}]})
    worker = Child(WorkerSpec(0, 0, config, 1, 1), pid=77)
    counter = Child(ConntrackCounterSpec(1, None, None, 1, 1, "/var/empty"), pid=78)
    with structlog.testing.capture_logs() as lines:
        monitor = KernelMonitor(TableMonitor((4,), structlog.get_logger(), full=lambda: None))
        monitor.count_workers(counter, [counter])
        assert lines == []
        monitor.count_workers(worker, [counter])
        assert [line["log_level"] for line in lines] == ["error"]
