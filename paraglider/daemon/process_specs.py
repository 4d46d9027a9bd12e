"""The processes that a configuration needs, and their main functions.

Lives here: ``make_specs`` and ``live``.
Rules: what needs privileges is opened here, by the parent, before it drops its own: listening
sockets, ping sockets, journals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.config.types import IPAddress
from paraglider.core.strategies import Registry
from paraglider.daemon import log
from paraglider.daemon.host_helper import process as host_helper
from paraglider.daemon.host_helper.process import HostHelperSpec
from paraglider.daemon.http import process as http
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.monitor import process as monitor
from paraglider.daemon.monitor.process import MonitorSpec, chroot_for, echo_for, runs_programs
from paraglider.daemon.processes.spec import Spec
from paraglider.daemon.reconcile.checks import checked
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.workers import conntrack_counter, proxy_worker, worker
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.bpf.loads import SharedLoads
from paraglider.forward.offload import connection_counts
from paraglider.forward.proxy.listeners import open_listeners
from paraglider.host.journal_files import files_for


@dataclass(frozen=True, slots=True)
class Place:
    """The root directory and the users of processes."""

    cores: tuple[int, ...]
    uid: int
    gid: int


def make_specs(
    config: Config,
    place: Place,
    registry: Registry,
    *,
    discovers: bool = False,
    watches_files: bool = False,
    carrier: CarrierMaps | None = None,
    lacks: frozenset[Method] = frozenset(),
    steering: int = 0,
) -> list[Spec]:
    """The specs of the workers for ``config`` and of the other processes; ``discovers``: services
    have backends from the DNS or files, ``watches_files``: from files; ``carrier`` has a ring for
    each worker, and does not carry the forward methods ``lacks``; ``steering`` is the seed by which
    packets are steered. Raises as ``open_listeners`` and ``echo_for``.
    """
    specs: list[Spec] = []
    queued = config.queued
    cores, uid, gid = place.cores, place.uid, place.gid
    if queued.services:
        counted, listed = connection_counts.wanted(queued, len(cores))
        files = files_for(queued, cores)
        loads = None if carrier is None else SharedLoads(len(cores))
        specs += [
            WorkerSpec(
                *(i, core, queued, uid, gid),
                registry=registry,
                live=counted,
                journals=files[i],
                counters=Counters(),
                workers=len(cores),
                carrier=None if carrier is None else carrier.duplicate(i),
                lacks=lacks,
                steering=steering,
                loads=loads,
            )
            for i, core in enumerate(cores)
        ]
        if counted is not None or listed is not None:
            specs.append(ConntrackCounterSpec(len(specs), counted, listed, uid, gid, config.chroot))
    proxied = config.listening
    rows = open_listeners(proxied, len(cores), _missing) if proxied.services else []
    first = len(specs)
    specs += [
        ProxySpec(
            *(first + i, i, cores[i], proxied, row, uid, gid),
            registry=registry,
            counters=Counters(),
        )
        for i, row in enumerate(rows)
    ]
    echo = echo_for(config, failover=config.failover.enabled)
    chroot = chroot_for(config, files=watches_files)
    specs.append(
        MonitorSpec(
            *(len(specs), echo, uid, gid, chroot),
            programs=runs_programs(config),
            discovers=discovers,
            idle=not discovers and not checked(config),
        )
    )
    return specs


def forget_other_journals(specs: Sequence[Spec]) -> None:
    """Remove journals of another steering, after all of ``specs`` have restored their flows."""
    for spec in specs:
        if isinstance(spec, WorkerSpec) and spec.journals is not None:
            spec.journals.remove_others()
            return


def run_role(spec: Spec, report: int, parent: int) -> int:
    """Run the main function of ``spec``'s role; returns the exit code of the process."""
    if isinstance(spec, WorkerSpec):
        return worker.run(spec, report, parent)
    if isinstance(spec, ProxySpec):
        return proxy_worker.run(spec, report, parent)
    if isinstance(spec, ConntrackCounterSpec):
        return conntrack_counter.run(spec, report, parent)
    if isinstance(spec, MonitorSpec):
        return monitor.run(spec, report, parent)
    if isinstance(spec, HttpSpec):
        return http.run(spec, report, parent)
    if isinstance(spec, HostHelperSpec):
        return host_helper.run(spec, report, parent)
    raise TypeError(f"a {spec.role} has no code")


def _missing(vip: IPAddress) -> None:
    log.logger().warning(
        "no interface has the VIP, clients cannot reach it",
        vip=str(vip),
        remedy="run paraglider.config",
    )
