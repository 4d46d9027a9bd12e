"""What the control socket shows: services, backends, processes and health, as plain data.

Rules: pure; ``now`` is monotonic seconds, ``wall`` the same instant since the epoch. Counters of
workers are sums since the start of the daemon. Packets and bytes are counted from the client's
side: ``in`` goes to the backend, ``out`` to the client; None if neither a worker nor the kernel
counts them. The kernel counts packets after GRO.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import paraglider
from paraglider._compiled import build_of
from paraglider.config.deciding import carried_by_workers, why_not_kernel
from paraglider.config.model import Config, Service
from paraglider.config.types import IPAddress
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.health import Health, VipHealth, of_all, of_node
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.announcing import AnnounceReconciler
from paraglider.daemon.shared_memory.counters import GAUGES, Sample
from paraglider.daemon.stats.traffic import Samples, TrafficCounters
from paraglider.daemon.store.backends import AgentFact, BackendRecord, BackendTable, Checked
from paraglider.daemon.store.node import Node
from paraglider.daemon.store.store import Store
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.nat import datapath as nat
from paraglider.netfilter.queue.proc import QueueStatus
from paraglider.netfilter.rules.steering import QUEUE_NAMES, worker_queues

#: numbers of a worker that are not listed among its ``counts``
_APART: Final = GAUGES | {"cpu", "packets", "batches"}


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by both clocks, to convert monotonic times."""

    now: float
    wall: float

    def date(self, then: float) -> str:
        """The monotonic ``then`` as ISO 8601, UTC."""
        return datetime.fromtimestamp(self.epoch(then), UTC).isoformat(timespec="seconds")

    def epoch(self, then: float) -> float:
        """The monotonic ``then`` as seconds since the epoch."""
        return self.wall - (self.now - then)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of the last reload, and its time (monotonic seconds); the digests of the file that
    is in use.
    """

    success: bool
    at: float
    digests: Mapping[str, str] = field(default_factory=dict)


def backends(
    config: Config, pools: BackendTable, traffic: TrafficCounters, at: Instant
) -> list[dict[str, Any]]:
    """Every backend of every service of ``config``."""
    return [
        _backend(service, member, traffic, at)
        for service in config.services
        for member in pools.of(service.name)
    ]


def services(
    config: Config, pools: BackendTable, traffic: TrafficCounters, switch: CarrierSwitch
) -> list[dict[str, Any]]:
    """Every service of ``config`` with its backends' sums, and what carries and decides."""
    return [_service(service, pools, traffic, switch) for service in config.services]


def processes(
    children: Iterable[Child],
    samples: Samples,
    queues: Mapping[int, QueueStatus],
    at: Instant,
    *,
    switch: CarrierSwitch | None = None,
) -> list[dict[str, Any]]:
    """Every process with its role, state and counters; ``queues`` are the kernel's, by number;
    without a ``switch`` the workers carry all flows.
    """
    carriers = switch or CarrierSwitch()
    return [
        _process(child, samples.get(child.spec.index), queues, at, carriers) for child in children
    ]


def carrier(whole: Viewable, samples: Samples) -> dict[str, Any]:
    """What carries flows, and why; the interfaces, the flows that BPF carries now, and the packets
    that its program saw, by reason. ``services`` are those that want the kernel to decide;
    ``lacks`` has the services that BPF cannot carry, and why.
    """
    switch, config = whole.carrier, whole.store.config
    reason = switch.why_worker(config)
    heads = [sample.head for sample in samples.values()]
    return {
        "carrier": "worker" if reason else switch.carries if config.wants_xdp else "bpf",
        "reason": reason,
        "able": switch.able,
        "on": switch.on,
        "devices": list(switch.read.devices),
        "failed": dict(switch.read.failed),
        "xdp": list(switch.read.xdp),
        "no_xdp": dict(switch.read.no_xdp) if config.wants_xdp else {},
        "lacks": {
            service.name: switch.lacks[service.method]
            for service in config.services
            if switch.able and service.wants_bpf and service.method in switch.lacks
        },
        # A worker's number is up to a second old: after a switch it is of the carrier before.
        "flows": 0 if reason else sum(head["carried"] for head in heads),
        "refused": sum(head["carrier_refused"] for head in heads),
        "packets": dict(switch.read.reasons),
        "services": [
            {"service": service.name, **_decided_by(service, switch)}
            for service in whole.store.config.services
            if service.decide != "python" and "decide" in service.method.options
        ],
    }


def health(found: Health, at: Instant) -> dict[str, Any]:
    """The health, whether to announce, and every problem: as a line, and as separate fields."""
    return {
        "healthy": not found.standing,
        "status": found.status,
        "announce": found.announce,
        "draining": found.draining,
        "problems": [each.line for each in found.standing],
        "conditions": [
            {
                "source": each.source,
                "object": each.object,
                "severity": each.condition.severity,
                "text": each.condition.text,
                "since": at.date(each.since),
            }
            for each in found.standing
        ],
    }


def changed(member: BackendRecord) -> dict[str, Any]:
    """The state and weight of a backend that a request has set."""
    return {
        "service": member.service,
        "backend": member.backend,
        "state": member.state.value,
        "weight": member.weight,
    }


def node(state: Node, at: Instant) -> dict[str, Any]:
    """Whether this balancer is drained; ``kept``: also by the next daemon."""
    return {
        "state": state.state,
        "since": at.date(at.now - (at.wall - state.since)),
        "seconds": round(max(at.wall - state.since, 0.0), 1),
        "kept": state.kept,
    }


def announced(vips: Mapping[IPAddress, VipHealth]) -> dict[str, dict[str, Any]]:
    """Whether to announce each VIP, its status, and why; empty without `announce` in the file."""
    return {
        str(vip): {"announce": one.announce, "status": one.status, "why": one.why}
        for vip, one in vips.items()
    }


class Viewable(Protocol):
    """What the views read."""

    started: float
    conditions: Conditions
    store: Store
    vips: AnnounceReconciler

    @property
    def loaded(self) -> Loaded:
        """The result of the last reload."""

    @property
    def carrier(self) -> CarrierSwitch:
        """Whether BPF carries flows."""

    def assess(self) -> None:
        """Bring the conditions up to date."""

    @property
    def kernel(self) -> dict[str, int] | None:
        """The kernel's state of offloaded flows, if there are any (``watch``), and refused new
        flows (``refusals``).
        """

    def processes(self) -> list[Child]:
        """All configured processes."""

    def traffic(self, samples: Samples) -> TrafficCounters:
        """The counters of the workers and of the kernel."""


def status(
    whole: Viewable, samples: Samples, queues: Mapping[int, QueueStatus], at: Instant
) -> dict[str, Any]:
    """Services, backends, processes, health, whether it is drained, the program and the last
    reload, at one instant.
    """
    config, pools, children = whole.store.config, whole.store.pools, whole.processes()
    traffic = whole.traffic(samples)
    whole.assess()
    return {
        "at": round(at.wall, 3),
        "services": services(config, pools, traffic, whole.carrier),
        "backends": backends(config, pools, traffic, at),
        "workers": processes(children, samples, queues, at, switch=whole.carrier),
        "health": health(of_all(whole.conditions, whole.store), at),
        "node": {
            **node(whole.store.node, at),
            "health": of_node(whole.conditions, whole.store).status,
        },
        "announced": announced(whole.vips.now()),
        "carrier": carrier(whole, samples),
        "daemon": {
            "version": paraglider.__version__,
            "python": platform.python_version(),
            "build": build_of(nat),
            "started": round(at.epoch(whole.started), 3),
        },
        "config": {
            "success": whole.loaded.success,
            "at": round(at.epoch(whole.loaded.at), 3),
            "digests": dict(whole.loaded.digests),
        },
        "kernel": whole.kernel,
    }


def _service(
    service: Service, pools: BackendTable, traffic: TrafficCounters, switch: CarrierSwitch
) -> dict[str, Any]:
    members = pools.of(service.name)
    return {
        "service": service.name,
        "vip": str(service.vip.ip),
        "protocol": service.protocol,
        "ports": "all" if service.all_ports else ",".join(map(str, service.ports)),
        "forward": service.forward,
        "return": service.answers,
        "carrier": switch.carries_for(service),
        **_decided_by(service, switch),
        "strategy": service.strategy,
        "affinity": service.affinity,
        "adopt": service.adopt if "adopt" in service.method.options else None,
        "drain_timeout": service.drain_timeout,
        "backends": len(members),
        "ready": sum(member.takes_flows for member in members),
        "fingerprint": pools.fingerprint(service.name),
        **traffic.total(service.name),
    }


def _decided_by(service: Service, switch: CarrierSwitch) -> dict[str, str | None]:
    """The service's ``decide``; what decides about its new flows, ``kernel`` or ``python``, and why
    not the kernel. None if its method leaves no choice.
    """
    carried = switch.carries_for(service) != "worker" or carried_by_workers(service)
    why = why_not_kernel(service, bpf=carried, room=service.name not in switch.unplaced)
    if why is None:
        return {"decide": None, "decided_by": None, "why_python": None}
    by = "python" if why else "kernel"
    return {"decide": service.decide, "decided_by": by, "why_python": why}


def _backend(
    service: Service, member: BackendRecord, traffic: TrafficCounters, at: Instant
) -> dict[str, Any]:
    return {
        "service": service.name,
        "backend": member.backend,
        "forward": service.forward,
        "weight": member.weight,
        "configured_weight": member.configured,
        "weight_by": member.weight_by.value,
        "state": member.state.value,
        "since": at.date(member.since),
        "seconds": round(at.now - member.since, 1),
        "why": member.why,
        "check": None if member.check is None else _check(member.check, at),
        "agent": None if member.agent is None else _agent(member.agent, at),
        "failed_checks": member.failed,
        "downs": member.downs,
        **traffic.of(service.name, member.backend),
    }


def _check(check: Checked, at: Instant) -> dict[str, Any]:
    return {
        "passed": check.passed,
        "code": check.code,
        "detail": check.detail,
        "took": check.took,
        "warning": check.warning,
        "at": at.date(check.at),
        "seconds": round(at.now - check.at, 1),
    }


def _agent(said: AgentFact, at: Instant) -> dict[str, Any]:
    return {
        "weight": said.weight,
        "mode": said.mode,
        "answered": said.answered,
        "code": said.code,
        "detail": said.detail,
        "at": at.date(said.at),
    }


def _process(
    child: Child,
    sample: Sample | None,
    queues: Mapping[int, QueueStatus],
    at: Instant,
    switch: CarrierSwitch,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "role": child.spec.role,
        "name": child.spec.name,
        **child.spec.labels(),
        "pid": child.pid or None,
        "starts": child.starts,
        "up": child.up,
        "serves": child.up,  # deprecated: "up"
        "seconds": round(at.now - child.started, 1) if child.pid else None,
        "filter": child.spec.filter if child.up and child.confined else None,
    }
    if sample is not None:
        shown |= _worker_counters(sample.head, at, lives=child.pid != 0)
    if isinstance(child.spec, WorkerSpec):
        found = {switch.carries_for(service) for service in child.spec.config.services}
        shown["carrier"] = ", ".join(sorted(filter(None, found))) or None
        wanted = child.spec.config.queue
        lengths = (wanted.length, wanted.openings, wanted.openings, wanted.length)
        numbers = worker_queues(child.spec.core)
        for name, number, length in zip(QUEUE_NAMES, numbers, lengths, strict=True):
            shown[name] = _queue(queues.get(number), length)
    return shown


def _worker_counters(head: Mapping[str, int], at: Instant, *, lives: bool) -> dict[str, Any]:
    """The counters of a worker; ``age`` is the seconds since it last wrote them. A dead worker has
    no flows and is not busy.
    """
    known = lives and head["alive"] > 0
    return {
        "flows": head["flows"] if known else None,
        "bound": head["bound"] if known else None,
        "carried": head["carried"] if known else None,
        **{name: head[name] if known else None for name in ("active", "closing", "half_open")},
        "busy": head["busy"] / 1e6 if known else None,
        "cpu": head["cpu"] / 1e9,
        "packets": head["packets"],
        "batches": head["batches"],
        "age": max(round(at.now - head["alive"] / 1e9, 3), 0.0) if head["alive"] else None,
        "counts": {name: count for name, count in head.items() if count and name not in _APART},
    }


def _queue(status: QueueStatus | None, length: int) -> dict[str, int] | None:
    """The kernel's counters of a worker's queue; None if no process reads it."""
    if status is None:
        return None
    return {
        "waiting": status.waiting,
        "length": length,
        "overflows": status.queue_dropped,
        "overruns": status.user_dropped,
    }
