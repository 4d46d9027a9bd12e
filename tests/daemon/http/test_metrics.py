"""The table of metrics: the samples of a status, and their documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from paraglider.core.pool import State
from paraglider.core.verdict import REASON_NAMES
from paraglider.daemon.http.metrics import MALFORMED, SECTIONS, render

ROOT = Path(__file__).resolve().parents[3]
TRAFFIC = {"flows": 3, "conns": 9, "packets_in": 20, "bytes_in": 2000}
TRAFFIC |= {"packets_out": 10, "bytes_out": 1000}
PROXIES = {"refused": 1, "timeouts": 2, "retried": 3, "idle": 4, "resets": 5}
CONDITION = {"source": "workers", "object": "worker 0", "severity": "degraded", "text": "full"}


def backend(name: str, **changes: Any) -> dict[str, Any]:
    """The row of a backend of the service ``web``."""
    return {
        "service": "web",
        "backend": name,
        "weight": 1,
        "configured_weight": 2,
        "state": "ready",
        "seconds": 10.0,
        **TRAFFIC,
        **PROXIES,
        "check": {"passed": True, "took": 0.25, "seconds": 1.5},
        **changes,
    }


def worker(number: int, **changes: Any) -> dict[str, Any]:
    """The row of a worker."""
    return {
        "role": "worker",
        "name": f"worker {number}",
        "worker": number,
        "core": number,
        "up": True,
        "starts": 1,
        "flows": 5,
        "bound": 100,
        "busy": 0.5,
        "cpu": 1.5,
        "packets": 7,
        "batches": 2,
        "age": 0.5,
        "counts": {"short": 1, "no_backend": 2},
        "queue": {"waiting": 4, "length": 60, "overflows": 1, "overruns": 2},
        "openings": {"waiting": 3, "length": 9, "overflows": 8, "overruns": 0},
        "offloaded": {"waiting": 2, "length": 9, "overflows": 0, "overruns": 0},
        **changes,
    }


def status(**changes: Any) -> dict[str, Any]:
    """The status of two backends and two workers."""
    service = {"service": "web", "vip": "192.168.0.11", "protocol": "tcp", "ports": "80"}
    service |= {"forward": "nat", "carrier": "bpf", "strategy": "rr", "affinity": "flow"}
    service |= {"decided_by": "python", "why_python": "`decide: python`", "fingerprint": "0a1b"}
    return {
        "at": 1000.0,
        "services": [{**service, "backends": 2, "ready": 1, **TRAFFIC}],
        "backends": [backend("10.0.0.1"), backend("10.0.0.2", state="drain-down", check=None)],
        "workers": [
            worker(0),
            worker(1, counts={"short": 2, "expired": 6}),
            {"role": "api", "name": "api", "up": True, "starts": 3},
        ],
        "health": {"healthy": True, "draining": True, "conditions": [CONDITION]},
        "announced": {"192.0.2.1": {"announce": True, "status": "healthy", "why": ""}},
        "daemon": {"version": "1.2", "python": "3.11.2", "build": "compiled", "started": 900.0},
        "config": {"success": True, "at": 950.0},
        "kernel": None,
        "carrier": {
            "carrier": "bpf",
            "reason": "",
            "flows": 8,
            "refused": 2,
            "packets": {"carried": 90, "syn": 5, "vlan": 0, "events_lost": 1},
        },
        **changes,
    }


class Found:
    """The samples that ``render`` writes for ``said``."""

    def __init__(self, said: dict[str, Any]) -> None:
        families = text_string_to_metric_families(render(said).decode())
        self.samples = [sample for family in families for sample in family.samples]
        self.names = {sample.name for sample in self.samples}

    def __getitem__(self, wanted: tuple[str, ...]) -> float:
        """The value of the one sample with that name and those values of its labels."""
        (value,) = self.all(*wanted)
        return value

    def all(self, name: str, *values: str) -> list[float]:
        """The values of the samples with that name and those values of their labels."""
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and set(sample.labels.values()) == set(values)
        ]

    def about(self, value: str) -> list[str]:
        """The names of the samples with a label of that value."""
        return [sample.name for sample in self.samples if value in sample.labels.values()]


def test_services_and_backends() -> None:
    """Counters, states, and start times."""
    found = Found(status())
    assert found["paraglider_service_ready_backends", "web"] == 1
    assert found["paraglider_service_table_info", "web", "0a1b"] == 1
    assert found["paraglider_service_connections_total", "web"] == 9
    info = ("web", "192.168.0.11", "tcp", "80", "nat", "rr", "flow")
    assert found[("paraglider_service_info", *info)] == 1
    assert found["paraglider_service_decided_info", "web", "python", "`decide: python`"] == 1
    assert found["paraglider_backend_in_bytes_total", "web", "10.0.0.1"] == 2000
    assert found["paraglider_backend_out_packets_total", "web", "10.0.0.1"] == 10
    assert found["paraglider_backend_state_timestamp_seconds", "web", "10.0.0.1"] == 990
    assert found["paraglider_backend_check_duration_seconds", "web", "10.0.0.1"] == 0.25
    assert found["paraglider_backend_check_timestamp_seconds", "web", "10.0.0.1"] == 998.5
    assert not found.all("paraglider_backend_check_success", "web", "10.0.0.2")
    states = {
        state.value: found["paraglider_backend_state", "web", "10.0.0.2", state.value]
        for state in State
    }
    assert states == {**dict.fromkeys(states, 0), "drain-down": 1}


def test_what_only_a_proxy_knows() -> None:
    """Errors by kind; no samples for methods without these counters."""
    found = Found(status())
    for kind, value in (("refused", 1), ("timeout", 2)):
        name = "paraglider_backend_connect_errors_total"
        assert found[name, "web", "10.0.0.1", kind] == value
    assert found["paraglider_backend_broken_connections_total", "web", "10.0.0.1", "reset"] == 5
    others = backend("10.0.0.1", **dict.fromkeys(PROXIES), bytes_in=None)
    names = Found(status(backends=[others])).names
    assert not [name for name in names if "connect_errors" in name or "retries" in name]
    assert "paraglider_backend_in_bytes_total" not in names


def test_a_backend_that_is_removed_has_no_series() -> None:
    """No metric has one."""
    assert Found(status()).about("10.0.0.2")
    assert not Found(status(backends=[backend("10.0.0.1")])).about("10.0.0.2")


def test_workers_and_queues() -> None:
    """Only processes with flows are workers; reasons have a label, malformed packets are summed."""
    found = Found(status())
    up = [sample.labels for sample in found.samples if sample.name == "paraglider_worker_up"]
    assert up == [{"role": "worker", "worker": str(n), "core": str(n)} for n in (0, 1)]
    assert found["paraglider_process_starts_total", "api", "api"] == 3
    assert found["paraglider_worker_busy_ratio", "worker", "0", "0"] == 0.5
    assert found["paraglider_worker_counted_timestamp_seconds", "worker", "0", "0"] == 999.5
    dropped = "paraglider_worker_packets_dropped_total"
    assert found[dropped, "worker", "0", "0", "no_backend"] == 2
    assert not found.all(dropped, "worker", "0", "0", "short")
    assert found["paraglider_packets_malformed_total", "short"] == 3
    assert found["paraglider_packets_malformed_total", "truncated"] == 0
    assert found["paraglider_worker_flows_ended_total", "worker", "1", "1", "timeout"] == 6
    assert found["paraglider_queue_waiting_packets", "0", "established"] == 4
    assert found["paraglider_queue_waiting_packets", "4097", "openings"] == 3
    assert found["paraglider_queue_waiting_packets", "8193", "offloaded"] == 2
    assert found["paraglider_queue_dropped_packets_total", "1", "established", "socket"] == 2
    assert found["paraglider_queue_dropped_packets_total", "4096", "openings", "queue"] == 8


def test_a_worker_that_is_dead() -> None:
    """It is down, its counters stay, its gauges have no sample; a queue
    without a reader has none.
    """
    dead = worker(0, up=False, flows=None, bound=None, busy=None, age=None, queue=None)
    found = Found(status(workers=[dead]))
    assert found["paraglider_worker_up", "worker", "0", "0"] == 0
    assert found["paraglider_worker_packets_total", "worker", "0", "0"] == 7
    assert not found.names & {"paraglider_worker_flows", "paraglider_worker_busy_ratio"}
    assert not [name for name in found.names if name.startswith("paraglider_queue")]


def test_metrics_of_the_kernel() -> None:
    """With offload services; of conntrack only if it is loaded."""
    assert not [name for name in Found(status()).names if "offload" in name or "conntrack" in name]
    seen = {"unanswered": 2, "gone": 1}
    found = Found(status(kernel=seen))
    assert found[("paraglider_offload_unanswered_packets_total",)] == 2
    assert not [name for name in found.names if "conntrack" in name]
    found = Found(status(kernel={**seen, "held": 7, "limit": 9, "dropped": 3}))
    assert found[("paraglider_conntrack_connections",)] == 7
    assert found[("paraglider_conntrack_dropped_packets_total",)] == 3


def test_the_malformed_are_reasons() -> None:
    """Every one is a reason of the core's."""
    assert set(MALFORMED) < set(REASON_NAMES)


def test_the_document_has_every_metric() -> None:
    """docs/metrics.md has a line for each, as the table has it, and no other."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    wanted = [
        f"| `{metric.name}` | {' '.join((*section.labels, *metric.labels))} | {metric.text} |"
        for section in SECTIONS
        for metric in section.metrics
    ]
    assert [line for line in text.splitlines() if line.startswith("| `paraglider_")] == wanted
