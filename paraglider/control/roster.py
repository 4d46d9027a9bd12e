"""Which processes a configuration asks for, and what each of them does.

Lives here: ``make_specs`` and ``live``.
Rules: what needs rights is opened here, by the parent, before it limits itself: listening sockets,
those for pings, and the places of ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.control import log
from paraglider.control.api import process as api
from paraglider.control.api.process import ApiSpec
from paraglider.control.host import process as reconciler
from paraglider.control.host.process import ReconcilerSpec
from paraglider.control.hub.health import checked
from paraglider.control.lookouts import checker
from paraglider.control.lookouts.checker import CheckerSpec, chroot_for, echo_for
from paraglider.control.processes import live
from paraglider.control.processes.counters import Counters
from paraglider.control.processes.spec import Spec
from paraglider.control.web import process as stats
from paraglider.control.web.process import StatsSpec
from paraglider.control.workers import proxy, tracker, worker
from paraglider.control.workers.proxy import ProxySpec
from paraglider.control.workers.tracker import TrackerSpec
from paraglider.control.workers.worker import WorkerSpec
from paraglider.core.strategies import Registry
from paraglider.system.ledger import files_for
from paraglider.system.listeners import open_listeners


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes run and whom they become."""

    cores: tuple[int, ...]
    uid: int
    gid: int


def make_specs(config: Config, place: Place, registry: Registry) -> list[Spec]:
    """The workers for ``config``, and what they need beside them; raises as ``open_listeners`` and
    ``echo_for``.
    """
    specs: list[Spec] = []
    queued = config.without_forwards("proxy")
    cores, uid, gid = place.cores, place.uid, place.gid
    if queued.services:
        counted, listed = live.wanted(queued, len(cores))
        files = files_for(queued, cores)
        specs += [
            WorkerSpec(
                *(i, core, queued, uid, gid),
                registry=registry,
                live=counted,
                ledgers=files[i],
                counters=Counters(),
            )
            for i, core in enumerate(cores)
        ]
        if counted is not None or listed is not None:
            specs.append(TrackerSpec(len(specs), counted, listed, uid, gid, config.chroot))
    proxied = config.for_forwards("proxy")
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
    idle = not checked(config)
    specs.append(CheckerSpec(len(specs), echo, uid, gid, chroot_for(config), idle=idle))
    return specs


def forget_other_ledgers(specs: Sequence[Spec]) -> None:
    """Remove ledgers of another steering: all of ``specs`` have taken over what they need."""
    for spec in specs:
        if isinstance(spec, WorkerSpec) and spec.ledgers is not None:
            spec.ledgers.remove_others()
            return


def be(spec: Spec, report: int, parent: int) -> int:
    """Do what ``spec`` is for; the exit code of the process."""
    if isinstance(spec, WorkerSpec):
        return worker.run(spec, report, parent)
    if isinstance(spec, ProxySpec):
        return proxy.run(spec, report, parent)
    if isinstance(spec, TrackerSpec):
        return tracker.run(spec, report, parent)
    if isinstance(spec, CheckerSpec):
        return checker.run(spec, report, parent)
    if isinstance(spec, ApiSpec):
        return api.run(spec, report, parent)
    if isinstance(spec, ReconcilerSpec):
        return reconciler.run(spec, report, parent)
    if isinstance(spec, StatsSpec):
        return stats.run(spec, report, parent)
    from paraglider.control.lookouts import scout  # loaded by now where there is a spec of it

    if isinstance(spec, scout.ScoutSpec):
        return scout.run(spec, report, parent)
    raise TypeError(f"nothing is known of a {spec.role}")


def _missing(vip: IPAddress) -> None:
    log.logger().warning(
        "no interface has the VIP, nobody can call it", vip=str(vip), remedy="run paraglider.config"
    )
