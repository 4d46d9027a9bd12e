"""``paraglider``: runs the daemon in the foreground.

All checks come before the first change: configuration, root, user, chroot directory, cores, queues,
policies.

All modules and files of Paraglider are read here, before the supervisor drops CAP_DAC_OVERRIDE:
only root may be able to read their directory. Discovery and DNS, whose libraries are a tenth of the
daemon's memory, are imported only if the configuration has such sources.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from typing import Final

from paraglider.config.model import Config
from paraglider.config.places import find_config
from paraglider.config.sources import origins
from paraglider.daemon import log
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.refusals import Refusals
from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.control.listening import ControlSocket
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.host_helper.adjust import HostRules
from paraglider.daemon.host_helper.carrier import CarrierAttachment
from paraglider.daemon.host_helper.process import HostHelperSpec
from paraglider.daemon.host_helper.readings import read
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.startup_sources import dns_names_in, gathered
from paraglider.daemon.process_specs import Place, forget_other_journals, make_specs, run_role
from paraglider.daemon.processes.notify import Notifier
from paraglider.daemon.settings import Settings
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.daemon.stats.kernel_readings import KernelReadings
from paraglider.daemon.store.node import Node
from paraglider.daemon.supervisor import Supervisor
from paraglider.daemon.web.bound import StatsSocket
from paraglider.daemon.web.page import StatsPage
from paraglider.daemon.web.routes import files as page_files
from paraglider.daemon.web.token import Token
from paraglider.errors import OperatorError, as_root
from paraglider.forward.offload.counters import KernelCounters
from paraglider.forward.offload.table_monitor import TableMonitor
from paraglider.host import policies, privileges
from paraglider.host.carrier import load_wanted
from paraglider.host.carrier_lacks import by_lack
from paraglider.host.carrier_support import not_carried
from paraglider.host.changes.base import Host
from paraglider.host.checks import check_chroot, check_root, check_user, check_vips
from paraglider.host.cores import agree, worker_cores
from paraglider.host.dns_cache import DnsCacheFile
from paraglider.host.file_watch import FilePoller
from paraglider.host.journal_files import resteered
from paraglider.host.node_file import NodeFile
from paraglider.host.ownership import (
    STARTED,
    CarrierClaim,
    announce,
    orphans,
    owner_of,
    state_path,
)
from paraglider.host.resolv_conf import ResolvConf
from paraglider.host.seed import steering_seed
from paraglider.netfilter.queue.proc import require_free
from paraglider.netfilter.rules.steering import worker_queues

#: seconds for which the queues of a daemon that has died are waited for
ENDING: Final = 10.0


def run(
    *,
    config: str | None,
    families: frozenset[int],
    failover: bool,
    debug: bool,
    queue_length: int | None,
    user: str | None,
    log_style: str,
) -> None:
    """Balance the file's services until SIGTERM or SIGINT; exits the process."""
    path = find_config(config)
    settings = Settings(path, families, failover, queue_length, user)
    found = settings.read()
    wanted = found.config
    check_root("paraglider")
    uid, gid = check_user(wanted.user)
    announcer, group = _announcer(wanted)
    check_chroot(wanted.chroot)
    _refuse_beside_static()
    check_vips(wanted.services)
    cores = worker_cores(wanted.workers)
    if wanted.queued.services:
        _await_queues(tuple(queue for core in cores for queue in worker_queues(core)))
    registry = policies.load(found.loaded)
    log.set_up(debug, log_style)
    if os.environ.get("PYTHONHASHSEED", "random") != "random":
        log.logger().warning("PYTHONHASHSEED is fixed: flow tables can be slowed down; unset it")
    for line in found.warnings:
        log.logger().warning(line)
    log.logger().info(
        "starting",
        config=str(path),
        services=len(wanted.services),
        cores=",".join(map(str, cores)),
        user=wanted.user,
    )
    named, kept = origins(wanted), DnsCache(DnsCacheFile(), log.logger().warning)
    if named:
        from paraglider.daemon.monitor import discovery
        from paraglider.daemon.monitor.dns_lookup import resolve_once

        discovery.preload()
        answers = resolve_once(dns_names_in(wanted), (uid, gid), wanted.chroot)
        wanted = gathered(wanted, found.listed, answers, log.logger().warning, kept)
        for line in HostRules(families, Host()).adjust(wanted):
            log.logger().info("host changed", what=line)
    queued = wanted.queued.services
    steering = steering_seed(wanted.seed)
    agree(cores, {service.family for service in queued}, steering)
    carrying = cores if queued else ()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(announce(carrying)))
        claim = stack.enter_context(contextlib.closing(CarrierClaim()))
        moved = bool(queued) and resteered(wanted.queued, cores)
        carrier, lacking = load_wanted(wanted, len(cores), claimed=claim.held, resteered=moved)
        at_xdp = carrier is not None and carrier.early is not None
        if wanted.wants_bpf:
            by = "xdp" if at_xdp else "bpf" if carrier is not None else "worker"
            log.logger().info("carrier of flows", carrier=by, why=lacking)
            for line in not_carried(wanted) if carrier is not None else ():
                log.logger().warning(line)
        lacks = {} if carrier is None else carrier.lacks
        for why, names in by_lack(wanted, lacks).items():
            services = ", ".join(names)
            log.logger().warning("carrier of flows", carrier="worker", services=services, why=why)
        switch = CarrierSwitch(lacking, xdp=at_xdp, lacks=lacks)
        switch.log_deciders(wanted.services)
        specs = make_specs(
            *(wanted, Place(cores, uid, gid), registry),
            discovers=bool(named),
            watches_files=any(source.file is not None for source in named.values()),
            carrier=None if carrier is None else carrier.maps,
            lacks=frozenset(lacks),
            steering=steering,
        )
        helper_carrier = None if carrier is None else carrier.duplicate()
        specs.append(HostHelperSpec(len(specs), wanted, families, helper_carrier))
        offloaded = {service.family for service in wanted.services if service.method.conntracked}
        begun = None if carrier is None else CarrierAttachment(carrier, wanted, log.logger())
        readings = KernelReadings(read(offloaded, begun))
        if carrier is not None:
            carrier.close()  # each process has descriptors of its own
        watch = TableMonitor(offloaded, log.logger(), counters=readings.tables, full=readings.fill)
        control = ControlSocket(wanted.control.socket, group)
        stack.enter_context(contextlib.closing(control))
        token = stack.enter_context(contextlib.closing(Token(wanted)))
        page = None
        if wanted.stats is not None:
            bound = stack.enter_context(contextlib.closing(StatsSocket(wanted.stats.bind)))
            listening, stats = bound.listening, wanted.stats
            page = StatsPage(
                *(listening, stats.names, stats.admin, page_files()), peers=stats.peers
            )
        connections = stack.enter_context(
            contextlib.closing(
                ControlConnections(control.listening, os.geteuid(), announcer=announcer)
            )
        )
        specs.append(HttpSpec(len(specs), connections, uid, gid, wanted.chroot, page))
        controller = Controller(
            wanted,
            registry,
            partial(forget_other_journals, specs),
            token.digest,
            read=settings.reading,
            file=FilePoller([path]),
            begun=found,
            named=named,
            kept=kept,
            control=connections,
            resolv_conf=ResolvConf() if named else None,
            node=Node(NodeFile()),
            kernel=KernelMonitor(
                watch,
                KernelCounters(wanted, readings.carried),
                Refusals(wanted, readings.refused),
                readings,
                carrier=switch,
                carried=CarriedCounters(wanted, readings.carrier()),
            ),
        )
        privileges.limit_parent(*(privileges.CARRIER_CAPABILITIES if carrier is not None else ()))
        status = Supervisor(specs, run_role, controller, Notifier()).run()
    sys.exit(status)


def _await_queues(queues: tuple[int, ...]) -> None:
    """Raise ``OperatorError`` if a process reads one of ``queues``. The workers of a daemon that
    has died read them until they have ended, so the error comes after ``ENDING`` seconds then.
    """
    deadline = time.monotonic() + ENDING if orphans() else 0.0
    while True:
        try:
            return require_free(queues)
        except OperatorError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.02)


def _announcer(config: Config) -> tuple[int, int] | tuple[None, None]:
    """The user and group that may ask at the control socket what to announce."""
    if config.announcer is None:
        return None, None
    return check_user(config.announcer, "control.announcer")


def _refuse_beside_static() -> None:
    if owner_of(state_path()) == STARTED:
        raise OperatorError(
            "the kernel already balances here (`paraglider start`)",
            f"first run {as_root('paraglider stop')}, then paraglider.config",
        )
