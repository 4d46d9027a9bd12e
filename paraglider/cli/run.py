"""``paraglider``: balance, in the foreground.

Everything that can be known to be wrong is said before anything is changed: the configuration,
what this version does not do, root, user, chroot directory, cores, queues, policies.
"""

from __future__ import annotations

import sys

from paraglider.config.advice import warnings
from paraglider.config.load import LoadedConfig, find_config, load_with_marks
from paraglider.config.model import Config
from paraglider.config.support import unsupported
from paraglider.config.types import IPAddress
from paraglider.control import live, log, proxy, tracker, worker
from paraglider.control.proxy import ProxySpec
from paraglider.control.supervisor import Spec, Supervisor
from paraglider.control.tracker import TrackerSpec
from paraglider.control.watch import Watch
from paraglider.control.worker import WorkerSpec
from paraglider.errors import OperatorError
from paraglider.forwarding import policies
from paraglider.system import privileges
from paraglider.system.checks import check_chroot, check_root, check_user
from paraglider.system.cores import worker_cores
from paraglider.system.ledger import files_for
from paraglider.system.listeners import open_listeners
from paraglider.system.owner import STARTED, owner_of, state_path
from paraglider.system.queue.proc import require_free


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
    """Balance what the file says until SIGTERM or SIGINT; exits the process."""
    path = find_config(config)
    loaded = load_with_marks(path)
    loaded.refuse(unsupported(loaded.config, failover=failover))
    wanted = _with_options(loaded, families, queue_length, user)
    check_root("paraglider")
    uid, gid = check_user(wanted.user)
    check_chroot(wanted.chroot)
    _not_started()
    cores = worker_cores(wanted.workers)
    proxied = wanted.for_forwards("proxy")
    queued = wanted.without_forwards("proxy")
    if queued.services:
        require_free(cores)
    registry = policies.load(loaded)
    log.set_up(debug, log_style)
    for line in loaded.lines(warnings(loaded.config)):
        log.logger().warning(line)
    log.logger().info(
        "starting",
        config=str(path),
        services=len(wanted.services),
        cores=",".join(map(str, cores)),
        user=wanted.user,
    )
    ledgers = files_for(queued, cores)
    specs: list[Spec] = []
    if queued.services:
        counted = live.wanted(queued, len(cores))
        specs += [
            WorkerSpec(i, core, queued, uid, gid, registry=registry, live=counted, ledgers=files)
            for i, (core, files) in enumerate(zip(cores, ledgers, strict=True))
        ]
        if counted is not None:
            specs.append(TrackerSpec(len(specs), counted, uid, gid, queued.chroot))
    rows = open_listeners(proxied, len(cores), _missing) if proxied.services else []
    proxies = [
        ProxySpec(len(specs) + i, i, cores[i], proxied, row, uid, gid, registry=registry)
        for i, row in enumerate(rows)
    ]
    specs += proxies
    offloaded = {service.family for service in queued.services if service.forward == "offload"}
    watch = Watch(offloaded, log.logger()) if offloaded else None
    privileges.limit_parent()

    def live_as(spec: Spec, report: int, parent: int) -> int:
        """What a process of the supervisor's does."""
        for other in proxies:
            if other is not spec:
                other.forsake()
        if isinstance(spec, TrackerSpec):
            return tracker.run(spec, report, parent)
        if isinstance(spec, ProxySpec):
            return proxy.run(spec, report, parent)
        return worker.run(spec, report, parent)

    all_ready = [ledgers[0].remove_others] if queued.services else []
    sys.exit(Supervisor(specs, live_as, watch, *all_ready).run())


def _not_started() -> None:
    if owner_of(state_path()) == STARTED:
        raise OperatorError(
            "the kernel balances here by itself: `paraglider start`",
            "end that first, sudo paraglider stop, and run paraglider.config",
        )


def _missing(vip: IPAddress) -> None:
    log.logger().warning(
        "no interface has the VIP, nobody can call it", vip=str(vip), remedy="run paraglider.config"
    )


def _with_options(
    loaded: LoadedConfig, families: frozenset[int], queue_length: int | None, user: str | None
) -> Config:
    """The file's configuration as the command line changes it."""
    config = loaded.for_families(families)
    changes: dict[str, object] = {}
    if queue_length is not None:
        changes["queue"] = config.queue.model_copy(update={"length": queue_length})
    if user is not None:
        changes["user"] = user
    return config.model_copy(update=changes)
