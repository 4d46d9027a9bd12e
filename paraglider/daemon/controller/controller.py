"""The controller: turns requests and inputs into changes of the store, and has them reconciled.

``apply_config`` applies another configuration: it changes the host first (by the host helper),
since that may fail, then the store, and with the next turn the processes: in place if they can
apply it, otherwise by a rolling restart. A process that starts inherits the current state.

Rules: runs in the supervisor, with its privileges; never waits for a process, a program or the
kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from paraglider.config.model import BackendSource, Config
from paraglider.config.steps import Steps
from paraglider.core.strategies import Registry
from paraglider.daemon import log
from paraglider.daemon.conditions.assessing import Assessing
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.controller.handlers import Handlers
from paraglider.daemon.controller.http_requests import HttpRequests
from paraglider.daemon.controller.processes import SOON, Processes, discovers
from paraglider.daemon.controller.reloader import FlowCounts, Reloader
from paraglider.daemon.controller.views import Loaded
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.health import HealthInput
from paraglider.daemon.inputs.own_addresses import OwnAddressInput
from paraglider.daemon.inputs.planner import Planner
from paraglider.daemon.inputs.reload import Capabilities, FlowLoss, ReloadOutcome
from paraglider.daemon.inputs.reload_queue import NONE_ENDS, UNCOUNTED, Done
from paraglider.daemon.inputs.sources import SourceInput
from paraglider.daemon.inputs.suspended_policies import SuspendedPolicies
from paraglider.daemon.ipc import Broadcasts, Frame, Kind
from paraglider.daemon.messages import (
    ClientRequest,
    DnsFailure,
    DnsUpdate,
    FileChanged,
    HealthNews,
    HostNews,
    UnplacedServices,
)
from paraglider.daemon.monitor.process import runs_programs
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.spec import StartupState
from paraglider.daemon.reconcile.announcing import AnnounceReconciler, VipTable
from paraglider.daemon.reconcile.checks import CheckReconciler, checked
from paraglider.daemon.reconcile.draining import DrainReconciler
from paraglider.daemon.reconcile.host import HostRequests
from paraglider.daemon.reconcile.turns import Step, Turns
from paraglider.daemon.reconcile.workers import WorkerReconciler
from paraglider.daemon.settings import Read
from paraglider.daemon.stats.traffic import Samples, TrafficCounters
from paraglider.daemon.store.node import Node
from paraglider.daemon.store.store import Desired, Store
from paraglider.forward.worker_datapath import kind_of
from paraglider.host.file_watch import FilePoller
from paraglider.host.resolv_conf import ResolvConf


class Controller:
    """Applies ``config``; ``registry`` has its strategies, ``kernel`` monitors the kernel.

    ``all_ready`` is called once, when every process is ready for the first time. ``token`` is the
    hash of the token for changes on the stats page. ``read`` reads ``file`` again, in steps,
    ``begun`` is what it was at the start; ``adjust`` changes the host instead of the host helper.
    ``named`` are the sources of backends that are not listed in the file; ``config`` includes the
    backends that they listed, ``kept`` is the DNS cache, ``resolv_conf`` has the host's name
    servers. ``control`` has the connections of the control socket, ``node`` whether this balancer
    is drained.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        all_ready: Callable[[], None] = lambda: None,
        token: bytes | None = None,
        *,
        read: Callable[[], Steps[Read]],
        file: FilePoller,
        begun: Read | None = None,
        adjust: Callable[[Config, Callable[[], object]], list[str]] | None = None,
        named: Mapping[str, BackendSource] | None = None,
        kept: DnsCache | None = None,
        control: ControlConnections | None = None,
        resolv_conf: ResolvConf | None = None,
        kernel: KernelMonitor | None = None,
        node: Node | None = None,
    ) -> None:
        self.store = Store(config, time.monotonic(), node)
        self._planner = Planner(self.store)
        self._group = Processes()
        self.requests = Broadcasts(self._group.request)
        self.started = time.monotonic()
        self.conditions = Conditions()
        self._policies = SuspendedPolicies(registry, self.conditions, self._group.send_to_carriers)
        self._registry = registry
        self._kernel = kernel or KernelMonitor()
        self.carrier = self._kernel.carrier
        self._all_ready = all_ready
        self.handlers = Handlers(self)
        self._control = control
        self._http = HttpRequests(self.handlers, token, control)
        self._health = HealthInput(self.store, self.apply_config)
        self._sources = SourceInput(
            *(self.store, self.apply_config, named or {}), kept=kept, resolv_conf=resolv_conf
        )
        self._watches_files = self._sources.watches_files
        self._host = HostRequests(self.requests, self._group.host_helper)
        self.carrier.connect(self._host.attach, partial(self._group.ask_carriers, self.requests))
        self._tables = self._host.kernel_tables(config)
        self._adjust = adjust or self._host.adjust
        flows = FlowCounts(
            *(self.store, self._kernel, self.requests, self._host),
            *(self._group.active, self._group.carriers),
        )
        own, digests = None, None
        if begun is not None:
            own = OwnAddressInput(self.conditions, begun, lambda: self._host.addresses)
            digests = begun.digests
        self._reloader = Reloader(
            *(self, self._group, self._sources, flows),
            read=read,
            file=file,
            own=own,
            digests=digests,
        )
        self._draining = DrainReconciler(self.store, self._group.active, self.apply, self._host)
        self._workers = WorkerReconciler(self.store, self._group.active, self._group.send)
        self._checks = CheckReconciler(self.store, self._group.monitor, self._group.send)
        self._faults = Faults()
        self._assessing = Assessing(
            *(self.store, self.conditions, self._kernel, self._group), self._faults
        )
        self.vips = AnnounceReconciler(
            VipTable(self.store, self.conditions), self.assess, self._group.http, self._group.send
        )
        steps: dict[str, Step] = {
            "requests to processes": self.requests.poll,
            "connections of the control socket": self._poll_control,
            "backends that are listed elsewhere": self._poll_sources,
            "the configuration file": lambda now: self._reloader.watch(self.store.wanted, now),
            "addresses of this host": self._reloader.follow,
            "reloads": self._continue_reloads,
            "backends that drain": self._reconcile_draining,
            "results of checks": self._apply_results,
            "states of the workers": self._workers.reconcile,
            "targets of the checks": self._checks.reconcile,
            "offloaded services": self._reconcile_tables,
            "the kernel's tables": lambda _: self._kernel.reconcile(
                self._host.read, self.conditions
            ),
            "health": self._assessing.run,
            "openings without an answer": self._assessing.compare_openings,
            "VIPs to announce": self.vips.reconcile,
        }
        self._turns = Turns(steps, self._faults)
        self._log: Any = log.logger()

    def attach(self, children: ProcessManager) -> None:
        """See ``supervisor``."""
        self._group.attach(children)
        self._kernel.attach(children)
        if self._control is not None:
            self._control.watch(children.loop)

    def ready(self) -> None:
        """See ``supervisor``."""
        self._all_ready()

    def startup_state(self) -> StartupState:
        """See ``child.Owner``."""
        states, live = self.store.pools.states(), self._kernel.live
        memory, on = (live.counted, live.listed), self.carrier.on
        return StartupState(
            *(self.store.config, states, self._registry, *memory),
            carries=on,
            watches_files=self._sources.watches_files,
        )

    def on_ready(self, child: Child) -> None:
        """See ``child.Owner``."""
        self._kernel.count_workers(child, self._group)
        self._assessing.on_ready(child)
        self.vips.touch()
        if discovers(child):
            self._group.send(child.spec.index, self._sources.order())
        self._group.continue_restart()

    def on_exit(self, child: Child) -> None:
        """See ``child.Owner``."""
        self.requests.on_exit(child.spec.index)
        self.vips.touch()
        self._kernel.count_workers(child, self._group)

    def on_message(self, child: Child, frame: Frame) -> None:
        """See ``child.Owner``."""
        message, index = frame.message, child.spec.index
        if frame.kind is Kind.ANSWER:
            self.requests.on_answer(index, frame.number, message)
        elif isinstance(message, ClientRequest):
            self._http.handle(
                message, lambda reply: self._group.send(index, reply, Kind.ANSWER, frame.number)
            )
        elif isinstance(message, HealthNews):
            self._health.handle(message)
        elif isinstance(message, DnsUpdate | DnsFailure | FileChanged):
            self._sources.handle(message)
        elif isinstance(message, HostNews):
            self._host.on_message(message, self.conditions, self._tables.put_back)
        elif isinstance(message, UnplacedServices):
            self.carrier.unplaced = frozenset(message.services)
        else:
            what = f"invalid message from the {child.spec.role}, ignored"
            self._log.error(what, type=type(message).__name__, **child.spec.labels())

    def on_hang(self, child: Child) -> Mapping[str, str]:
        """See ``child.Owner``."""
        return self._policies.hangs(self.store.config, child.spec.heartbeat)

    def turn(self, now: float) -> float:
        """See ``supervisor``."""
        return self._turns.run(now)

    def _poll_control(self, now: float) -> float:
        return inf if self._control is None else self._control.poll(now)

    def _poll_sources(self, now: float) -> float:
        if self._sources.order_changed(now):
            for index in self._group.discovering():
                self._group.send(index, self._sources.order())
        return self._sources.turn(now)

    def _apply_results(self, now: float) -> float:
        if not self._host.adjusting:
            self._health.apply_discovered(now)
        if not self._health.wait(now):
            self._request_early_checks(now)
        return self._health.wait(now)

    def _reconcile_tables(self, now: float) -> float:
        self._tables.reconcile(self.store.pools)
        if over := self._tables.tick(now):  # deleted when no worker has the old states
            self.when_applied(lambda: self._host.forget(over.marks, over.datagrams, over.passing))
        return self._tables.wait(now)

    def assess(self) -> None:
        """See ``Viewable``."""
        self._assessing.assess()

    def stop(self) -> None:
        """See ``supervisor``."""
        if self._control is not None:
            self._control.stop()

    def close(self) -> None:
        """See ``supervisor``."""
        self._tables.close()

    def on_hangup(self, done: Callable[[], object]) -> None:
        """See ``supervisor``."""
        self._reloader.queue.attempt("SIGHUP", lambda: self.when_applied(done))

    def request_reload(self, requested_by: str, done: Done, *, force: bool = False) -> None:
        """See ``handlers.RequestController``."""
        self._reloader.queue.request(requested_by, done, force=force)

    @property
    def loaded(self) -> Loaded:
        """See ``views.Viewable``."""
        return self._reloader.loaded

    def reload(self, requested_by: str) -> ReloadOutcome:
        """Read and apply the file now; raises ``ParagliderError``."""
        return self._reloader.reload(requested_by)

    def reloaded(self) -> None:
        """See ``reloader.Applies``."""
        if self._policies.clear():
            self.store.pools.mark()
        if self._watches_files != self._sources.watches_files:
            self._watches_files = self._sources.watches_files
            self._group.replace_roles({"monitor"})  # with another root directory

    @property
    def kernel(self) -> dict[str, int] | None:
        """See ``handlers.RequestController``."""
        return self._kernel.shown

    def traffic(self, samples: Samples) -> TrafficCounters:
        """See ``handlers.RequestController``."""
        return self._kernel.traffic(samples)

    def when_read(self, done: Callable[[], object]) -> None:
        """See ``handlers.RequestController``."""
        self._kernel.readings.when_new(done)

    def processes(self) -> list[Child]:
        """See ``handlers.RequestController``; without those that are idle."""
        return self._group.active()

    def carriers(self) -> list[int]:
        """See ``handlers.RequestController``."""
        return self._group.carriers()

    def apply_config(
        self,
        config: Config,
        requested_by: str,
        again: Callable[[], object] = lambda: None,
        ending: FlowLoss = NONE_ENDS,
    ) -> ReloadOutcome:
        """Apply ``config``, which is valid, and the discovered backends; returns the changes.
        ``requested_by`` is for the log.

        Settings that need a restart are not changed, and are reported; so is a service whose flows
        another forward method would end, unless ``ending`` allows it. Raises ``ParagliderError``;
        then nothing has changed. Raises ``HostPendingError`` while the host is being changed, and
        calls ``again`` after that.
        """
        plan = self._planner.plan(config, self._able(ending))
        change = plan.outcome
        logger = self._log.bind(by=requested_by)
        if change.words:
            done = self.apply(plan.after, again)
            if done:
                logger.info("host changed", what="; ".join(done))
            logger.info("configuration changed", what="; ".join(change.words))
        self._planner.forget()
        self.store.discovered.note_applied(config, self.store.wanted)
        if change.restart:
            logger.warning("not changed", why="; ".join(change.restart))
        return change

    def planning(self, config: Config) -> Steps[None]:
        """See ``reloader.Applies``."""
        return self._planner.planning(config, self._able(UNCOUNTED))

    def _able(self, ending: FlowLoss) -> Capabilities:
        roles = self._group.roles(counting=self._kernel.live.counted is not None)
        able = self.carrier.lacking, self.carrier.xdp, self.carrier.lacks
        return Capabilities(roles, frozenset(self._registry), ending, *able)

    def apply(self, desired: Desired, again: Callable[[], object]) -> list[str]:
        """Change the host for ``desired``, then the store; returns the changes of the host. Raises
        as ``apply_config``; ``again`` is as there.
        """
        config = desired.config
        done = self._adjust(config, again)
        before = self.store.config
        self.store.apply(desired, time.monotonic())
        renewed: set[str] = set()
        if kind_of(before) != kind_of(config):
            renewed.add("worker")
        workers = sum(child.spec.role == "worker" for child in self.processes())
        renewed |= self._kernel.apply_config(config, workers)
        if runs_programs(before) != runs_programs(config):
            renewed.add("monitor")
        state = self.startup_state()
        for child in self.processes():
            child.spec = child.spec.updated(state)
        self._workers.supersede(renewed)
        self._tables = self._host.kernel_tables(config, self._tables)
        if checked(config):
            self._group.wake_monitor()
        self._group.replace_roles(renewed)
        return done

    def _reconcile_draining(self, now: float) -> float:
        return inf if self._host.adjusting else self._draining.reconcile(now)

    def _continue_reloads(self, _now: float) -> float:
        if not self._host.adjusting:
            self._reloader.queue.advance()
        return 0.0 if self._reloader.queue.reading else inf

    def _request_early_checks(self, now: float) -> None:
        """Have the monitor check the backends of failed connections sooner."""
        counters = (child.spec.counters for child in self._group)
        samples = (each.read() for each in counters if each is not None)
        if (hints := self._health.hints(samples, now)) and (monitor := self._group.monitor()):
            self._group.send(monitor.spec.index, hints)

    def when_applied(self, done: Callable[[], object]) -> None:
        """See ``handlers.RequestController``."""
        self._workers.when_applied(done, time.monotonic() + SOON)
