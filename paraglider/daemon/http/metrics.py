"""Every metric, in one table: the status in Prometheus' format.

A section covers the rows of one kind (services, backends, workers…) and names their labels; a
metric takes its values from one row. So a removed backend has no series from the next scrape on.
Names follow Prometheus' conventions: base units, a unit at the end, ``_total`` for counters. ``in``
is from clients to backends, ``out`` from backends to clients.

Rules: pure; a value that is None has no sample. docs/metrics.md is tested against this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from paraglider.core.pool import State
from paraglider.core.verdict import DROP, PASS, REASONS
from paraglider.daemon.http.carrier_metrics import CARRIER
from paraglider.daemon.http.daemon_metrics import DAEMON
from paraglider.daemon.http.exposition import (
    Described,
    MetricSection,
    Row,
    Values,
    count,
    each,
    exposed,
    plain,
    since,
)
from paraglider.netfilter.rules.steering import QUEUE_NAMES, worker_queues

#: reasons of ``core.verdict`` for malformed packets
MALFORMED: Final = (
    *("short", "bad_version", "bad_header_length", "bad_total_length", "truncated"),
    *("bad_extension", "short_transport", "short_error"),
)


def render(status: Row) -> bytes:
    """The text for ``status`` (``views.status``), of type ``exposition.CONTENT_TYPE``."""
    return exposed(SECTIONS, status)


def _states(row: Row) -> Values:
    return [((state.value,), row["state"] == state.value) for state in State]


def _of_kind(kind: int) -> dict[str, str]:
    """The reasons for passing, or dropping, a packet, except those for malformed ones."""
    names = (name for name, verdict, _ in REASONS if verdict == kind)
    return {name: name for name in names if name not in MALFORMED}


def _dated(rows: str) -> Callable[[Row], Iterable[Row]]:
    """The rows of that name, each with the time of the status as ``now``."""
    return lambda status: [{**row, "now": status["at"]} for row in status[rows]]


def _workers(status: Row) -> Iterable[Row]:
    """The processes that carry flows."""
    return [row for row in _dated("workers")(status) if "counts" in row]


def _queues(status: Row) -> Iterable[Row]:
    """The kernel's queues that a process reads, up to four per worker."""
    return [
        {**row[name], "queue": number, "traffic": traffic}
        for row in status["workers"]
        if row.get("queue")
        for name, number, traffic in zip(
            QUEUE_NAMES,
            worker_queues(row["core"]),
            ("established", "openings", "offloaded", "tunnels"),
            strict=True,
        )
        if row.get(name)
    ]


def _malformed(status: Row) -> Iterable[Row]:
    """The malformed packets of all workers together."""
    counts = [row["counts"] for row in status["workers"] if "counts" in row]
    return [{"counts": {name: sum(c.get(name, 0) for c in counts) for name in MALFORMED}}]


def _traffic(of: str) -> tuple[Described, ...]:
    """The counters that services and backends have."""
    return (
        Described(f"paraglider_{of}_flows", "Active flows.", plain("flows")),
        Described(
            f"paraglider_{of}_inactive_flows",
            "Half-open flows, and closed ones that are kept until their timeout.",
            plain("inactive"),
        ),
        Described(f"paraglider_{of}_connections_total", "Connections begun.", plain("conns")),
        Described(
            f"paraglider_{of}_adopted_connections_total",
            "Those of them that began at another balancer, or were forgotten here.",
            plain("adopted"),
        ),
        Described(
            f"paraglider_{of}_new_flows_total",
            f"Deprecated: the same as paraglider_{of}_connections_total.",
            plain("conns"),
        ),
        Described(
            f"paraglider_{of}_in_packets_total", "Packets from clients.", plain("packets_in")
        ),
        Described(f"paraglider_{of}_in_bytes_total", "Bytes from clients.", plain("bytes_in")),
        Described(
            f"paraglider_{of}_out_packets_total", "Packets to clients.", plain("packets_out")
        ),
        Described(f"paraglider_{of}_out_bytes_total", "Bytes to clients.", plain("bytes_out")),
    )


def _decided(row: Row) -> tuple[str, str]:
    return row["decided_by"], row["why_python"]


_SERVICE_INFO: Final = ("vip", "protocol", "ports", "forward", "strategy", "affinity")
_DECIDED: Final = ("by", "reason")

_SERVICE: Final = (
    Described(
        "paraglider_service_info",
        "A service as it is configured; the value is always 1.",
        lambda row: [(tuple(str(row[name]) for name in _SERVICE_INFO), 1)],
        _SERVICE_INFO,
    ),
    Described(
        "paraglider_service_decided_info",
        "What decides about new flows of a service with `carrier`, `kernel` or `python`, and why"
        " not the kernel; the value is always 1.",
        lambda row: [(_decided(row), 1)] if row["decided_by"] else [],
        _DECIDED,
    ),
    Described(
        "paraglider_service_table_info",
        "A hash of what decides which backend a new flow of a service gets; equal on balancers that"
        " pick the same. The value is always 1.",
        lambda row: [((row["fingerprint"],), 1)],
        ("fingerprint",),
    ),
    Described("paraglider_service_backends", "Backends of the pool.", plain("backends")),
    Described("paraglider_service_ready_backends", "Backends that take new flows.", plain("ready")),
    *_traffic("service"),
)
_BACKEND: Final = (
    Described(
        "paraglider_backend_state",
        "1 for the state that a backend is in, 0 for the others.",
        _states,
        ("state",),
    ),
    Described(
        "paraglider_backend_state_timestamp_seconds",
        "When a backend entered its state.",
        since("seconds"),
    ),
    Described("paraglider_backend_weight", "The weight that a backend has now.", plain("weight")),
    Described(
        "paraglider_backend_configured_weight",
        "The weight that the configuration gives it.",
        plain("configured_weight"),
    ),
    Described(
        "paraglider_backend_check_success",
        "Whether the last check passed; absent before the first one.",
        plain("check", "passed"),
    ),
    Described(
        "paraglider_backend_check_duration_seconds",
        "How long the last check took.",
        plain("check", "took"),
    ),
    Described(
        "paraglider_backend_check_timestamp_seconds",
        "When the last check ended.",
        since("check", "seconds"),
    ),
    *_traffic("backend"),
    Described(
        "paraglider_backend_repeated_openings_total",
        "SYNs that clients repeated without an answer; not with `forward: proxy`.",
        plain("unanswered"),
    ),
    Described(
        "paraglider_backend_connect_errors_total",
        "With `forward: proxy`: connections that a backend did not accept.",
        lambda row: [(("refused",), row.get("refused")), (("timeout",), row.get("timeouts"))],
        ("reason",),
    ),
    Described(
        "paraglider_backend_retries_total",
        "With `forward: proxy`: connections for which another backend was tried then.",
        plain("retried"),
    ),
    Described(
        "paraglider_backend_broken_connections_total",
        "With `forward: proxy`: connections that one end reset, or that were idle for too long.",
        lambda row: [(("reset",), row.get("resets")), (("idle",), row.get("idle"))],
        ("reason",),
    ),
)
_PROCESS: Final = (
    Described("paraglider_process_up", "Whether a process is up.", plain("up")),
    Described(
        "paraglider_process_starts_total",
        "Starts of a process: the first one, and each replacement.",
        plain("starts"),
    ),
)
_WORKER: Final = (
    Described("paraglider_worker_up", "Whether a worker is up.", plain("up")),
    Described(
        "paraglider_worker_counted_timestamp_seconds",
        "When a worker last wrote its counters: every worker does so five times a second, a"
        " proxy worker twice a second.",
        since("age"),
    ),
    Described(
        "paraglider_worker_busy_ratio",
        "Share of its core that a worker used recently.",
        plain("busy"),
    ),
    Described("paraglider_worker_cpu_seconds_total", "CPU time of a worker.", plain("cpu")),
    Described("paraglider_worker_flows", "Flows that a worker has.", plain("flows")),
    Described("paraglider_worker_flows_limit", "Flows that a worker may have.", plain("bound")),
    Described("paraglider_worker_carried_flows", "Flows that BPF carries.", plain("carried")),
    Described("paraglider_worker_active_flows", "Active flows of a worker.", plain("active")),
    Described(
        "paraglider_worker_half_open_flows",
        "Flows of a worker that are not established yet; evicted before active ones.",
        plain("half_open"),
    ),
    Described(
        "paraglider_worker_closing_flows",
        "Closed flows of a worker, kept until their timeout; evicted first.",
        plain("closing"),
    ),
    Described("paraglider_worker_packets_total", "Packets received.", plain("packets")),
    Described("paraglider_worker_batches_total", "Batches of packets received.", plain("batches")),
    Described(
        "paraglider_worker_packets_passed_total",
        "Packets that a worker passed unchanged, by reason.",
        each(("counts",), _of_kind(PASS)),
        ("reason",),
    ),
    Described(
        "paraglider_worker_packets_dropped_total",
        "Packets that a worker dropped, by reason; without malformed ones.",
        each(("counts",), _of_kind(DROP)),
        ("reason",),
    ),
    Described(
        "paraglider_worker_flows_ended_total",
        "Flows that were removed: by their timeout, or to make room for others.",
        each(("counts",), {"expired": "timeout", "evicted": "pressure"}),
        ("reason",),
    ),
    Described(
        "paraglider_worker_unwritten_flows_total",
        "Flows without room in the flow journal: they would not survive the worker.",
        count("unwritten"),
    ),
    Described(
        "paraglider_worker_faults_total",
        "Packets dropped since handling them failed; the log has the reason.",
        count("faults"),
    ),
    Described(
        "paraglider_worker_refused_verdicts_total",
        "Verdicts that the kernel refused.",
        count("verdicts_refused"),
    ),
    Described(
        "paraglider_worker_policy_faults_total",
        "Faults of strategies of your own.",
        each(
            ("counts",),
            {f"policy_{name}": name for name in ("raised", "wrong", "slow", "benched")},
        ),
        ("reason",),
    ),
    Described(
        "paraglider_worker_unserved_connections_total",
        "With `forward: proxy`: clients that were reset, since no backend accepted.",
        count("unserved"),
    ),
    Described(
        "paraglider_worker_exhausted_total",
        "With `forward: proxy`: times that no socket was left to accept with.",
        count("exhausted"),
    ),
)
_QUEUE: Final = (
    Described(
        "paraglider_queue_waiting_packets", "Packets that wait for a worker.", plain("waiting")
    ),
    Described("paraglider_queue_limit_packets", "Packets that may wait at most.", plain("length")),
    Described(
        "paraglider_queue_dropped_packets_total",
        "Packets dropped since the worker opened the queue: it or its socket was full.",
        lambda row: [(("queue",), row["overflows"]), (("socket",), row["overruns"])],
        ("full",),
    ),
)
_PACKETS: Final = (
    Described(
        "paraglider_packets_malformed_total",
        "Malformed packets, by reason.",
        each(("counts",), {name: name for name in MALFORMED}),
        ("reason",),
    ),
)
_KERNEL: Final = (
    Described(
        "paraglider_offload_unanswered_packets_total",
        "With `forward: offload`: first packets without a worker's answer, which the kernel's hash "
        "decided, since the table was made.",
        plain("unanswered"),
    ),
    Described(
        "paraglider_offload_gone_packets_total",
        "With `forward: offload`: first packets for removed backends; the kernel's hash decided.",
        plain("gone"),
    ),
    Described(
        "paraglider_conntrack_connections",
        "With `forward: offload`: connections in conntrack's table, of the whole host.",
        plain("held"),
    ),
    Described("paraglider_conntrack_limit", "Most connections in that table.", plain("limit")),
    Described(
        "paraglider_conntrack_dropped_packets_total",
        "First packets that the kernel dropped, since its table was full.",
        plain("dropped"),
    ),
    Described(
        "paraglider_openings_refused_packets_total",
        "With `forward: nat`, `dsr` and `tunnel`: packets that would open a flow, of clients not "
        "known yet, dropped since there were more than `queue.openings_rate`.",
        lambda row: [
            ((protocol,), row.get(f"refused_{protocol}")) for protocol in ("tcp", "udp", "icmp")
        ],
        ("protocol",),
    ),
)

#: all sections
SECTIONS: Final = (
    *DAEMON,
    MetricSection(_dated("services"), ("service",), _SERVICE),
    MetricSection(_dated("backends"), ("service", "backend"), _BACKEND),
    MetricSection(_dated("workers"), ("role", "name"), _PROCESS),
    MetricSection(_workers, ("role", "worker", "core"), _WORKER),
    MetricSection(_queues, ("queue", "traffic"), _QUEUE),
    MetricSection(_malformed, (), _PACKETS),
    CARRIER,
    MetricSection(lambda status: [status["kernel"]] if status["kernel"] else [], (), _KERNEL),
)
