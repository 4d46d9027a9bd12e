"""The hub: what is true of services and backends now, and who is told of it.

It holds the configuration and the table of pools, hears the processes and answers the control
socket (``desk``). Every change of a state or weight goes through ``move`` and ``weigh``: the table
first, then the log, then the processes. Another configuration comes by ``adopt``: the host first
(by the reconciler, ``orders``), since that may fail, then the table, then the processes, in place
where they can take it, else by replacing them one after the other. A process that starts inherits
all of it.

Rules: runs in the supervisor, with its rights; never waits for a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from paraglider.config.model import BackendSource, Config
from paraglider.core.pool import DOWN, Event
from paraglider.core.strategies import Registry
from paraglider.daemon import log
from paraglider.daemon.conditions.assessor import Assessor
from paraglider.daemon.conditions.journals import JournalMonitor
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.conditions.unanswered import UnansweredOpenings
from paraglider.daemon.controller.handlers import SOON, Handlers
from paraglider.daemon.controller.readonly_handlers import ReadOnlyHandlers
from paraglider.daemon.controller.views import Loaded
from paraglider.daemon.inputs.config_watcher import ConfigWatcher
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.health import HealthInput
from paraglider.daemon.inputs.reload import Capabilities, FlowLoss, ReloadOutcome, compare
from paraglider.daemon.inputs.reload_queue import NONE_ENDS, Done, ReloadQueue
from paraglider.daemon.inputs.sources import SourceInput
from paraglider.daemon.inputs.suspended_policies import SuspendedPolicies
from paraglider.daemon.ipc import Broadcasts, Frame, Kind, encode
from paraglider.daemon.messages import (
    DnsAnswer,
    DnsFailure,
    FileChanged,
    HealthNews,
    HostConditions,
    Message,
    TablesRestored,
    WriteCounters,
)
from paraglider.daemon.monitor.process import MonitorSpec, runs_programs
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.rolling_restart import Renewal
from paraglider.daemon.processes.spec import CARRIERS, StartupState
from paraglider.daemon.reconcile.checks import CheckReconciler, checked, monitors
from paraglider.daemon.reconcile.draining import DrainReconciler
from paraglider.daemon.reconcile.host import HostRequests
from paraglider.daemon.reconcile.kernel_tables import EndedConnections, KernelTables
from paraglider.daemon.reconcile.turns import Step, Turns
from paraglider.daemon.reconcile.workers import WorkerReconciler
from paraglider.daemon.settings import Read
from paraglider.daemon.stats.traffic import Samples, Traffic, samples
from paraglider.daemon.store.backends import BackendRecord, BackendTable
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.daemon.store.store import Desired, Store
from paraglider.errors import PlatformError
from paraglider.forward.worker_datapath import kind_of
from paraglider.netfilter.rules.marks import backend_marks


class Controller:
    """Applies ``config``; ``registry`` has its strategies, ``kernel`` monitors the kernel.

    ``all_ready`` is called once, when every process serves for the first time. ``token`` is the
    hash of what the stats page needs to change anything. ``read`` reads ``file`` again, ``adjust``
    brings the host to another configuration, if not the reconciler (``HostRequests.adjust``).
    ``named`` is where services have their backends listed, if not in the file; ``config`` has what
    was found there, and what the DNS says is ``kept``.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        all_ready: Callable[[], None] = lambda: None,
        token: bytes | None = None,
        *,
        read: Callable[[], Read],
        file: ConfigWatcher,
        adjust: Callable[[Config, Callable[[], object]], list[str]] | None = None,
        named: Mapping[str, BackendSource] | None = None,
        kept: DnsCache | None = None,
        kernel: KernelMonitor | None = None,
    ) -> None:
        self.store = Store(config, time.monotonic())
        self.questions = Broadcasts(self._request)
        self.started = time.monotonic()
        self.loaded = Loaded(True, self.started)
        self.conditions = Conditions()
        self._assessor = Assessor(self.conditions)
        self._journals = JournalMonitor(self.conditions)
        self._unanswered = UnansweredOpenings(self.conditions)
        self._suspensions = SuspendedPolicies(registry, self.conditions, self._send_to_carriers)
        self._registry = registry
        self._kernel = kernel or KernelMonitor()
        self._all_ready = all_ready
        self._children: dict[int, Child] = {}
        self._all: ProcessManager | None = None
        self.desk = Handlers(self)
        self._gate = ReadOnlyHandlers(self.desk, token)
        self._health = HealthInput(self)
        self._sources = SourceInput(self, named or {}, kept=kept)
        self._orders = HostRequests(self.questions, self._reconciler)
        self._offloaded = KernelTables(config, load=self._orders.load)
        self._read = read
        self._file = file
        self._adjust = adjust or self._orders.adjust
        self._reloads = ReloadQueue(self)
        self._draining = DrainReconciler(self, self._orders)
        self._renewal = Renewal()
        self._connections: Mapping[int, int] | None = None  # of the kernel, by mark
        self._workers = WorkerReconciler(self, self.processes, self._send)
        self._checks = CheckReconciler(self, self._monitor, self._send)
        self._faults = Faults()
        steps: dict[str, Step] = {
            "questions to processes": self.questions.poll,
            "backends that are listed elsewhere": self._sources.look,
            "the configuration file": self._look_at_file,
            "reloads": self._look_at_reloads,
            "backends that drain": self._look_at_draining,
            "what the checker found": self._look_at_found,
            "states of the workers": self._workers.reconcile,
            "targets of the checks": self._checks.reconcile,
            "offloaded services": self._look_at_offloaded,
            "the kernel's tables": lambda _: self._kernel.reconcile(
                self._orders.read, self.conditions
            ),
            "health": self._assess,
            "openings without an answer": self._look_at_openings,
        }
        self._turns = Turns(steps, self._faults)
        self._log: Any = log.logger()

    def attach(self, children: ProcessManager) -> None:
        """See ``Controller``."""
        self._all = children
        self._children = {child.spec.index: child for child in children}
        self._kernel.attach(children)

    def ready(self) -> None:
        """See ``Controller``."""
        self._all_ready()

    def startup_state(self) -> StartupState:
        """See ``child.Owner``."""
        states = self.pools.states()
        return StartupState(
            self.config, states, self._registry, self._kernel.live.counted, self._kernel.live.listed
        )

    def on_ready(self, child: Child) -> None:
        """See ``child.Owner``."""
        self._kernel.count_workers(self._children.values())
        self._journals.came(child)
        if _discovers(child):
            self._send(child.spec.index, self._sources.order())
        if self._all is not None:
            self._renewal.go_on(self._all)

    def on_exit(self, child: Child) -> None:
        """See ``child.Owner``."""
        self.questions.on_exit(child.spec.index)
        self._kernel.count_workers(self._children.values())

    def on_message(self, child: Child, frame: Frame) -> None:
        """See ``child.Owner``."""
        message, index = frame.message, child.spec.index
        if frame.kind is Kind.ANSWER:
            self.questions.on_answer(index, frame.number, message)
        elif child.spec.role == "http":
            handlers = self._gate if getattr(message, "listener", "") == "stats" else self.desk
            handlers.take(
                message, lambda reply: self._send(index, reply, Kind.ANSWER, frame.number)
            )
        elif isinstance(message, HealthNews):
            self._health.take(message)
        elif isinstance(message, DnsAnswer | DnsFailure | FileChanged):
            self._sources.take(message)
        elif isinstance(message, HostConditions | TablesRestored):
            self._orders.hear(message, self.conditions, self._renewed)
        else:
            what = f"invalid message from the {child.spec.role}, ignored"
            self._log.error(what, type=type(message).__name__, **child.spec.labels())

    def on_hang(self, child: Child) -> Mapping[str, str]:
        """See ``child.Owner``."""
        return self._suspensions.hangs(self.config, child.spec.life)

    def look(self, now: float) -> float:
        """See ``Controller``."""
        return self._turns.run(now)

    def _look_at_file(self, now: float) -> float:
        if not self.wanted.watch:
            return inf
        if self._file.changed(now):
            self._reloads.attempt("watch")
        return self._file.wait(now)

    def _look_at_found(self, now: float) -> float:
        if not self._orders.adjusting:
            self._health.settle(now)
        if not self._health.wait(now):
            self._pass_on_hints(now)
        return self._health.wait(now)

    def _look_at_offloaded(self, now: float) -> float:
        self._offloaded.reconcile(self.pools)
        if over := self._offloaded.tick(now):
            self._forget(over)
        return self._offloaded.wait(now)

    def _assess(self, now: float) -> float:
        if not self._assessor.wait(now):
            self.assess()
            processes = self.processes()
            self._assessor.workers(processes, samples(processes), now)
            self._assessor.faults(self._faults.last, now)
            if self._all is not None and (gone := self._journals.look(processes)):
                self._renewal.add(gone)
                self._renewal.go_on(self._all)
        return self._assessor.wait(now)

    def _look_at_openings(self, now: float) -> float:
        if not self._unanswered.wait(now):
            traffic = self.traffic(samples(self.processes()))
            read = now if self._kernel.read_at is None else self._kernel.read_at
            self._unanswered.look(self.config, self.pools, traffic, now, read)
        return self._unanswered.wait(now)

    def assess(self) -> None:
        """See ``Viewable``."""
        self._assessor.services(self.config, self.pools)
        self._assessor.processes(self.processes())

    def close(self) -> None:
        """See ``Controller``."""
        self._offloaded.close()

    def hang_up(self, done: Callable[[], object]) -> None:
        """See ``Controller``."""
        self._reloads.attempt("SIGHUP", done)

    def ask_reload(self, said_by: str, done: Done, *, force: bool = False) -> None:
        """See ``desk.State``."""
        self._reloads.ask(said_by, done, force=force)

    def read(self) -> Read:
        """See ``reloads.Body``."""
        self.loaded = Loaded(False, time.monotonic())
        self._file.note()
        found = self._read()
        for line in found.warnings:
            self._log.warning(line)
        return found

    def flows_of(self, service: str) -> int:
        """See ``reloads.Body``."""
        marks = backend_marks(self.config).get(service, ())
        if marks and self._connections is not None:
            return sum(self._connections.get(mark, 0) for mark in marks)
        return self.traffic(samples(self.processes())).total(service)["flows"] or 0

    def report(self, then: Callable[[], object]) -> None:
        """See ``reloads.Body``."""

        def counted(connections: Mapping[int, int] | None) -> None:
            self._connections = connections  # None: by those that were listed last
            then()

        def written(_: object) -> None:
            self._orders.count(counted)

        until = time.monotonic() + SOON
        try:
            self.questions.request(self.carriers(), WriteCounters(), until, written)
        except PlatformError:  # too much is being asked: by the last numbers, then
            written(None)

    def reload(
        self, said_by: str, found: Read | None = None, ending: FlowLoss = NONE_ENDS
    ) -> ReloadOutcome:
        """See ``reloads.Body``."""
        found = found or self.read()
        monitors = [child for child in self._children.values() if _discovers(child)]
        config = self._sources.prepared(found.config, found.listed) if monitors else found.config
        change = self.adopt(config, said_by, self._reloads.go_on, ending)
        self.loaded = Loaded(True, time.monotonic())
        self._suspensions.clear()
        if monitors:
            self._sources.follow(found.config)
        for monitor in monitors:
            self._send(monitor.spec.index, self._sources.order())
        return change

    @property
    def kernel(self) -> dict[str, int] | None:
        """See ``handlers.State``."""
        return self._kernel.shown

    def traffic(self, samples: Samples) -> Traffic:
        """See ``handlers.State``."""
        return self._kernel.traffic(samples)

    def when_read(self, done: Callable[[], object]) -> None:
        """See ``handlers.State``."""
        self._kernel.readings.when_new(done)

    def processes(self) -> list[Child]:
        """See ``desk.State``; without those that are idle."""
        return [child for child in self._children.values() if not child.spec.idle]

    def carriers(self) -> list[int]:
        """See ``desk.State``."""
        return [i for i, c in self._children.items() if c.spec.role in CARRIERS and c.serves]

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """Move ``member`` by ``event``, which may change nothing, and tell of it."""
        before = member.state
        if self.pools.apply(member, event, why, time.monotonic()):
            tell = self._log.warning if member.state in DOWN else self._log.info
            tell(
                "backend changed",
                service=member.service,
                backend=member.backend,
                state=member.state.value,
                before=before.value,
                by=member.state_by.value,
                why=why,
            )

    def weigh(self, member: BackendRecord, weight: int) -> None:
        """Give ``member`` another weight, and tell of it."""
        before = member.weight
        self.pools.set_weight(member, weight)
        if member.weight != before:
            self._log.info(
                "weight changed",
                service=member.service,
                backend=member.backend,
                weight=weight,
                before=before,
            )

    @property
    def adjusting(self) -> bool:
        """Whether the host is being changed: nothing can be taken over now."""
        return self._orders.adjusting

    def adopt(
        self,
        config: Config,
        said_by: str,
        again: Callable[[], object] = lambda: None,
        ending: FlowLoss = NONE_ENDS,
    ) -> ReloadOutcome:
        """Go on with ``config``, whole and valid, which ``said_by`` has asked for, and with the
        hosts that failover found; what changed.

        What takes a restart stays as it is, and is told of; so does a service whose flows another
        way of forwarding would end, unless they may (``ending``). Others keep their backends.
        Raises ``ParagliderError``; nothing has changed then. ``HostPendingError`` is raised while
        the host has yet to be changed for it; ``again`` is called when that is done, to try again.
        """
        roles = {child.spec.role for child in self.processes()}
        if self._kernel.live.counted is None:  # one that only lists gets no event of an end
            roles.discard("conntrack counter")
        if any(_discovers(child) for child in self._children.values()):
            roles.add("discovery")
        able = Capabilities(frozenset(roles), frozenset(self._registry), ending)
        change = compare(self.wanted, self.discovered.into(config), able)
        logger = self._log.bind(by=said_by)
        if change.words:
            done = self.apply(self.desired.replaced(change.config), again)
            if done:
                logger.info("host changed", what="; ".join(done))
            logger.info("configuration changed", what="; ".join(change.words))
        self.discovered.adopted(config, self.wanted)
        if change.restart:
            logger.warning("not changed", why="; ".join(change.restart))
        return change

    def apply(self, desired: Desired, again: Callable[[], object]) -> list[str]:
        """Bring the host to ``desired``, then have the daemon go by it; what the host had to have
        done. Raises as ``adopt``, and ``again`` is as there.
        """
        config = desired.config
        done = self._adjust(config, again)
        before = self.config
        self.store.apply(desired, time.monotonic())
        renewed: set[str] = set()
        if kind_of(before) != kind_of(config):
            renewed.add("worker")
        workers = sum(child.spec.role == "worker" for child in self.processes())
        renewed |= self._kernel.apply_config(config, workers)
        if runs_programs(before) != runs_programs(config):
            renewed.add("monitor")
        for child in self.processes():
            child.spec = child.spec.updated(self.startup_state())
        self._workers.supersede(renewed)
        self._offloaded = KernelTables(config, before=self._offloaded, load=self._orders.load)
        for child in self._children.values() if checked(config) else ():
            if child.spec.idle and child.spec.role == "monitor" and self._all is not None:
                self._all.wake(child)
        if self._all is not None:
            self._renewal.add(c for c in self.processes() if c.spec.role in renewed)
            self._renewal.go_on(self._all)
        return done

    def _look_at_draining(self, now: float) -> float:
        return inf if self._orders.adjusting else self._draining.reconcile(now)

    def _look_at_reloads(self, _now: float) -> float:
        if not self._orders.adjusting:
            self._reloads.go_on()
        return inf

    def _reconciler(self) -> int | None:
        """The number of the process that changes the host, None while there is none."""
        found = (c for c in self._children.values() if c.spec.role == "host helper" and c.serves)
        return next((child.spec.index for child in found), None)

    def _renewed(self, family: int) -> None:
        """The table of ``family`` was made anew."""
        self._offloaded.put_back(family)

    def _pass_on_hints(self, now: float) -> None:
        """Tell the checker what clients have met."""
        counters = (child.spec.counters for child in self._children.values())
        samples = (each.read() for each in counters if each is not None)
        if (hints := self._health.hints(samples, now)) and (monitor := self._monitor()):
            self._send(monitor.spec.index, hints)

    def _monitor(self) -> Child | None:
        """The process that checks, None while none does."""
        return next(iter(monitors(self._children.values())), None)

    @property
    def desired(self) -> Desired:
        """Which services and backends there are."""
        return self.store.desired

    @property
    def config(self) -> Config:
        """All services and backends, also those that drain."""
        return self.store.config

    @property
    def wanted(self) -> Config:
        """The services and backends that take new flows."""
        return self.store.wanted

    @property
    def listed(self) -> Config:
        """Those of the file and the DNS."""
        return self.store.listed

    @property
    def pools(self) -> BackendTable:
        """The state of every backend."""
        return self.store.pools

    @property
    def discovered(self) -> DiscoveredHosts:
        """The hosts that failover found."""
        return self.store.discovered

    def when_applied(self, done: Callable[[], object]) -> None:
        """See ``handlers.State``."""
        self._workers.when_applied(done, time.monotonic() + SOON)

    def _forget(self, over: EndedConnections) -> None:
        """Have the kernel forget connections, once no worker goes by what was before."""
        self.when_applied(lambda: self._orders.forget(over.marks, over.datagrams, over.passing))

    def _send(
        self, index: int, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0
    ) -> None:
        if self._all is not None:
            self._all.send(self._children[index], message, kind, number)

    def _request(self, index: int, message: Message | bytes, number: int) -> None:
        self._send(index, message, Kind.REQUEST, number)

    def _send_to_carriers(self, message: Message) -> None:
        body = encode(message)
        for child in self._children.values():
            if child.spec.role in CARRIERS:
                self._send(child.spec.index, body)


def _discovers(child: Child) -> bool:
    """Whether ``child`` asks the DNS and watches files."""
    return isinstance(child.spec, MonitorSpec) and child.spec.discovers
