"""A worker: one process, one core, queues for established traffic and for openings.

Everything that needs root or a file happens first: the queues' sockets, the flow table, every
import, one packet of each kind through the packet path. Then the worker drops its privileges
(``host.privileges``), reports that it is ready, and only reads packets and sets verdicts. Python's
cyclic collector is off: the packet path makes no cycles, and a collection over a million flows
would hold every packet up.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import Any, ClassVar, Self

from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.core.packet import SYN
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.daemon import log
from paraglider.daemon.ipc import EndpointClosedError, EndpointError
from paraglider.daemon.processes.bootstrap import (
    lock_down,
    report_error,
    report_ready,
    set_process_name,
)
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.daemon.shared_memory.counters import ROWS_A_TICK, CounterWriter
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.daemon.workers import journals, policy_watch
from paraglider.daemon.workers.commands import Commands
from paraglider.daemon.workers.flow_log import FlowLog
from paraglider.errors import ParagliderError, PlatformError
from paraglider.forward import registry
from paraglider.forward.bpf.context import BpfResources
from paraglider.forward.bpf.loads import SharedLoads
from paraglider.forward.flow_share import flows_of
from paraglider.forward.flows import FlowView
from paraglider.forward.offload.connection_counts import LiveFlows
from paraglider.forward.services import States
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.host import policies
from paraglider.host.journal_files import JournalFiles
from paraglider.host.policies import has_policies
from paraglider.host.privileges import NEEDED
from paraglider.netfilter.queue import QUEUES, QueueReader
from paraglider.netfilter.queue.copy_range import CopyRange
from paraglider.netfilter.queue.reader import Tick
from paraglider.netfilter.queue.worker_queues import Lengths, open_queues
from paraglider.netfilter.raw_output import RawOutput
from paraglider.netfilter.rules.marks import SENT

#: flows that one ``tick`` checks for expiry: 20,000 a second, in under 5 ms even interpreted
EXPIRY_BUDGET = 1000
#: seconds between two writings of the counters, at least, and the rows that are written then
COUNTERS_INTERVAL = 0.2
COUNTER_ROWS = 4 * ROWS_A_TICK


@dataclass(frozen=True, slots=True)
class WorkerSpec(Spec):
    """The startup parameters of a worker: index and core, user, root directory, strategies, the
    connection counts of offloaded services, its flow journals, the states of the backends, whether
    BPF ``carries`` flows, the maps by which it can, the forward methods that it cannot carry, the
    number of workers, the seed by which packets are steered to them, and the flows of all workers.
    """

    role: ClassVar[str] = "worker"
    core: int
    config: Config
    uid: int
    gid: int
    registry: Registry = field(default_factory=lambda: STRATEGIES)
    live: LiveFlows | None = None
    journals: JournalFiles | None = None
    states: States = field(default_factory=dict)
    carries: bool = True
    carrier: CarrierMaps | None = None
    lacks: frozenset[Method] = frozenset()
    workers: int = 1
    steering: int = 0
    loads: SharedLoads | None = None

    @property
    def filter(self) -> str:
        """See ``spec.Spec``: with a carrier, operations on its maps are allowed."""
        return self.role if self.carrier is None else f"{self.role}-bpf"

    @property
    def name(self) -> str:
        """Its name in log lines."""
        return f"worker {self.index} on core {self.core}"

    def labels(self) -> dict[str, int]:
        """The fields that identify it in log lines, beside its role."""
        return {"worker": self.index, "core": self.core}

    def release(self) -> None:
        """See ``spec.Spec``."""
        if self.journals is not None:
            self.journals.held.close()
        if self.carrier is not None:
            self.carrier.close()

    def updated(self, state: StartupState) -> Self:
        """See ``spec.Spec``."""
        return replace(
            self,
            config=state.config.queued,
            states=state.states,
            registry=state.registry,
            live=state.live,
            carries=state.carries,
        )


def run(spec: WorkerSpec, report: int, parent: int) -> int:
    """Run the worker ``spec`` until SIGTERM; returns the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    logger = log.logger(worker=spec.index, core=spec.core)
    try:
        queue, path, journals, copy = _prepare(spec, logger)
        ahead = partial(_begin_policies, spec, logger) if has_policies(spec.registry) else None
        lock_down(spec.filter, parent, (spec.uid, spec.gid), spec.config.chroot, NEEDED, ahead)
    except ParagliderError as error:
        return report_error(report, error)
    report_ready(report)
    status = 0
    try:
        queue.serve(path.handle, _ticker(spec, path, queue, journals, copy, logger))
    except OSError as error:
        logger.error("queue failed", error=str(error))
        status = PlatformError.exit_code
    logger.info("stopped", flows=path.flows, **_counts(path, queue))
    queue.close()
    return status


def _prepare(
    spec: WorkerSpec, logger: Any
) -> tuple[QueueReader, WorkerDatapath, journals.Journals, CopyRange]:
    set_process_name(
        f"paraglider/{spec.core}", f"paraglider: worker {spec.index} on core {spec.core}"
    )
    pin(spec.core)
    live = None if spec.live is None else spec.live.reader(spec.index)
    resources = None
    if spec.carrier is not None:
        loads = spec.loads or SharedLoads(spec.workers)
        resources = BpfResources(spec.carrier, spec.workers, spec.steering, loads, spec.lacks)
    sends = any(registry.of(service).sends for service in spec.config.services)
    output = RawOutput(SENT) if sends else None
    path = build(spec.config, spec.index, time.monotonic(), spec.registry, live, resources, output)
    policy_watch.mark(path.services, spec.heartbeat)
    path.apply_states(spec.states)
    path.carry(spec.carries)
    if not has_policies(spec.registry):  # policies must not run with these privileges
        _warm_up(spec.config, spec.registry, spec.heartbeat)
    if logger.is_enabled_for(logging.DEBUG):
        path.trace(FlowLog(logger))
    wanted = spec.config.queue
    copy = CopyRange(path)
    lengths = Lengths(wanted.length, wanted.openings)
    queue = open_queues(wanted.io, spec.core, lengths, copy.size, tunnels=path.splits)
    if spec.endpoint is not None:
        queue.wake_by(spec.endpoint.fileno())
    if wanted.io == "auto" and queue.name != next(iter(QUEUES)):
        logger.warning("slow queue I/O", io=queue.name, why="the kernel refuses the fast one")

    def stop(_signal: int, _frame: FrameType | None) -> None:
        queue.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.collect()
    gc.freeze()
    gc.disable()
    held = journals.Journals(logger)
    if spec.journals is not None:  # last, when packets wait in the queue instead of being lost
        with spec.heartbeat.watched():
            share_of = partial(flows_of, spec.config, spec.index, spec.workers, spec.steering)
            held = journals.restore_flows(
                path, spec.journals, share_of, logger, spec.heartbeat.beat
            )
        spec.journals.held.close()
    return queue, path, held, copy


def _begin_policies(spec: WorkerSpec, logger: Any) -> None:
    """Import the policies with the privileges of the worker's user, and warm up with them."""
    for failure in policies.import_all(spec.registry, policy_watch.mark_imports(spec.heartbeat)):
        logger.error("policy not imported", error=failure)
    _warm_up(spec.config, spec.registry, spec.heartbeat)


def pin(core: int) -> None:
    """Pin the process to ``core``; raises ``PlatformError``."""
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise PlatformError(
            f"the kernel refuses core {core}: {error.strerror}",
            "name cores under `workers` that this process may use (see `taskset -p 1`)",
        ) from error


def _warm_up(config: Config, registry: Registry, life: Heartbeat) -> None:
    """Send packets of several kinds through a packet path that is then discarded.

    This moves Python's lazy initialisation and imports before the first packet and before chroot.
    The TCP and UDP packets open a flow of each service, and so call its strategy.
    """
    path = build(config, 0, 0.0, registry)
    policy_watch.mark(path.services, life)
    for service in path.services:
        head = b"\x45" if len(service.vip) == 4 else b"\x60"
        for protocol in service.protocols:
            packet = bytearray(head + bytes(79))
            if len(service.vip) == 4:
                packet[2:4] = len(packet).to_bytes(2, "big")
                packet[9] = protocol
                packet[16:20] = service.vip
            else:
                packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
                packet[6] = protocol
                packet[24:40] = service.vip
            transport = 20 if len(service.vip) == 4 else 40
            packet[transport + 2 : transport + 4] = service.ports[0][0].to_bytes(2, "big")
            packet[transport + 13] = SYN
            path.handle(packet, 0, len(packet), 0, 0.0)
    path.expire(1.0, EXPIRY_BUDGET)
    path.sync(1.0)


def _ticker(
    spec: WorkerSpec,
    path: WorkerDatapath,
    queue: QueueReader,
    journals: journals.Journals,
    copy: CopyRange,
    logger: Any,
) -> Tick:
    """The worker's tick, twenty times a second, less often while it is idle; faults are logged once
    a minute.
    """
    reported, report_at, counters_at = 0, 0.0, 0.0
    poll_policies = policy_watch.watch(lambda: path.services, logger)
    writer = None
    if spec.counters is not None:
        writer = CounterWriter(spec.counters, WorkerCounts(path, queue), COUNTER_ROWS)
    commands = None
    if spec.endpoint is not None:
        commands = Commands(spec.endpoint, WorkerSubject(spec, path), spec.heartbeat, writer)

    def tick(now: float) -> bool:
        nonlocal reported, report_at, counters_at
        spec.heartbeat.beat(now)
        path.expire(now, EXPIRY_BUDGET)
        journals.restore_some(now)
        journals.check(now)
        if commands is not None:
            try:
                commands.tick(now)
                commands.report_unplaced(path.unplaced)
            except EndpointError as error:
                if not isinstance(error, EndpointClosedError):  # else the supervisor has exited
                    logger.error("supervisor: connection failed", error=str(error))
                queue.stop()
        copy.tick(queue.copy, now)
        for refusal in path.sync(now):
            logger.warning("carrier not synchronized", error=str(refusal))
        if writer is not None and now >= counters_at:
            counters_at = now + COUNTERS_INTERVAL
            writer.tick()
        poll_policies(now)
        losses = _losses(queue)
        troubles = sum(losses.values())
        if troubles > reported and now >= report_at:
            reported, report_at = troubles, now + 60
            logger.error("packets lost", **losses, exc_info=queue.first_fault)
        return path.idle and not (commands is not None and commands.busy)

    return tick


class WorkerSubject:
    """Applies the supervisor's messages to ``path``, which was built for ``spec``."""

    def __init__(self, spec: WorkerSpec, path: WorkerDatapath) -> None:
        self._spec = spec
        self._path = path
        self._config = spec.config

    @property
    def view(self) -> FlowView | None:
        """See ``commands.Subject``."""
        return self._path.view

    def set_states(self, states: States) -> None:
        """See ``commands.Subject``."""
        self._path.apply_states(states)

    def suspend(self, services: list[str]) -> None:
        """See ``commands.Subject``."""
        policies.suspend(self._spec.registry, services)

    def carry(self, on: bool) -> None:
        """See ``commands.Subject``."""
        self._path.carry(on)

    def apply_config(self, config: Config) -> None:
        """See ``commands.Subject``."""
        wanted = config.queued
        with self._spec.heartbeat.long_work():
            self._path.apply_config(wanted, self._config, self._spec.index, self._spec.registry)
        policy_watch.mark(self._path.services, self._spec.heartbeat)
        self._config = wanted


class WorkerCounts:
    """The counters of the worker with ``path`` and ``queue``, as ``counters.CounterSource``."""

    def __init__(self, path: WorkerDatapath, queue: QueueReader) -> None:
        self._path = path
        self._queue = queue
        self.traffic = path.traffic

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        path, queue = self._path, self._queue
        return {
            "flows": path.flows,
            "bound": path.bound,
            "carried": path.carried,
            **path.groups,
            "packets": queue.packets,
            "batches": queue.batches,
            **_counts(path, queue),
        }


def _losses(queue: QueueReader) -> dict[str, int]:
    """Packets lost on the way to or from the queues, by cause, without zeros."""
    drops = [one.drops for one in queue.queues]
    losses = {
        "faults": queue.faults,
        "overflows": sum(one.overflows for one in drops[: queue.first]),
        "openings_dropped": sum(one.overflows for one in drops[queue.first :]),
        "overruns": sum(one.overruns for one in drops),
        "verdicts_refused": queue.refused,
    }
    return {cause: count for cause, count in losses.items() if count}


def _counts(path: WorkerDatapath, queue: QueueReader) -> dict[str, int]:
    return {**path.counts(), **_losses(queue), **policy_watch.counts(path.services)}
