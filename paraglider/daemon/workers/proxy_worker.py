"""A proxy worker: one process, one core, its own sockets on every port of the proxy services.

The supervisor binds the sockets before the fork, so the process needs no privileges: after the
imports and ``listen`` it changes to its user and root directory and drops all capabilities. Then an
event loop (uvloop) accepts and relays connections. On SIGTERM it stops accepting; established
connections have `timeouts.drain` seconds to end.

The cyclic collector is off, as in the workers that read queues: connections leave no cycles.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Final, Self

import uvloop

from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.strategies import STRATEGIES, NewFlow, Registry
from paraglider.daemon import log
from paraglider.daemon.ipc import EndpointError, IpcEndpoint
from paraglider.daemon.processes.bootstrap import (
    ignore_termination,
    lock_down,
    report_error,
    report_ready,
    set_process_name,
)
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.daemon.shared_memory.counters import CounterWriter
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.daemon.workers import policy_watch
from paraglider.daemon.workers.commands import Commands, Subject
from paraglider.daemon.workers.flow_log import FlowLog
from paraglider.daemon.workers.worker import EXPIRY_BUDGET, pin
from paraglider.errors import ParagliderError
from paraglider.forward.proxy.counts import Tally
from paraglider.forward.proxy.events import WRITE, SocketEvents
from paraglider.forward.proxy.header import header
from paraglider.forward.proxy.listeners import ProxyListener
from paraglider.forward.proxy.listing import ProxyView
from paraglider.forward.proxy.relay import Relay, Shared
from paraglider.forward.proxy.server import Proxy, build, listens
from paraglider.forward.services import States, make_services
from paraglider.host import policies, seccomp
from paraglider.host.policies import has_policies

#: seconds between two runs of expiry and of the log of failures
TICK: Final = 0.5
#: seconds between two slices of a walk over the connections
PAUSE: Final = 0.02
#: backends whose counters are written per tick
ROWS_A_TICK: Final = 256
#: seconds between two log lines about the same backend
AGAIN: Final = 60.0
#: file descriptors reserved for the loop, the listening sockets and the log
_SPARE_FILES: Final = 64
_FILES_A_CONNECTION: Final = 2


@dataclass(frozen=True, slots=True)
class ProxySpec(Spec):
    """The startup parameters of a proxy worker: its numbers and core, sockets, user, root
    directory, strategies. ``index`` is its number among all processes, ``number`` among the proxy
    workers.
    """

    role: ClassVar[str] = "proxy worker"
    number: int
    core: int
    config: Config
    listeners: tuple[ProxyListener, ...]
    uid: int
    gid: int
    registry: Registry = field(default_factory=lambda: STRATEGIES)
    states: States = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in log lines."""
        return f"{self.role} {self.number} on core {self.core}"

    @property
    def exit_timeout(self) -> float:
        """Seconds that it may take to exit."""
        return self.config.timeouts.drain + 1.0

    def labels(self) -> dict[str, int]:
        """The fields that identify it in log lines, beside its role."""
        return {"worker": self.number, "core": self.core}

    def updated(self, state: StartupState) -> Self:
        """See ``spec.Spec``."""
        return replace(
            self,
            config=state.config.listening,
            states=state.states,
            registry=state.registry,
        )

    def release(self) -> None:
        """See ``spec.Spec``."""
        for listener in self.listeners:
            listener.release()


def run(spec: ProxySpec, report: int, parent: int) -> int:
    """Run the proxy worker ``spec`` until SIGTERM; returns the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    logger = log.logger(role=spec.role, **spec.labels())
    try:
        seccomp.forbid_rings()  # libuv makes one for each loop, and needs none
        loop = uvloop.new_event_loop()
        proxy = _prepare(spec, loop, logger)
        ahead = partial(_begin_policies, spec, loop, logger)
        user = (spec.uid, spec.gid)
        chosen = ahead if has_policies(spec.registry) else None
        lock_down(spec.filter, parent, user, spec.config.chroot, ahead=chosen)
    except ParagliderError as error:
        return report_error(report, error)

    work = ProxySubject(spec, proxy)

    def stop() -> None:
        logger.info("draining", connections=proxy.live)
        proxy.drain(work.config.timeouts.drain, loop.stop)

    loop.add_signal_handler(signal.SIGTERM, stop)
    proxy.start()
    spec.heartbeat.pulse(loop)
    policy_watch.mark(proxy.services, spec.heartbeat)
    report_ready(report)
    writer = (
        None
        if spec.counters is None
        else CounterWriter(spec.counters, ProxyCounts(proxy), ROWS_A_TICK)
    )
    ProxyMonitor(loop, proxy, logger, writer).start()
    if spec.endpoint is not None:
        CommandReader(loop, spec.endpoint, work, spec.heartbeat, logger).open()
    loop.run_forever()
    ignore_termination()
    logger.info("stopped", **counts(proxy))
    loop.close()
    return 0


def _prepare(spec: ProxySpec, loop: asyncio.AbstractEventLoop, logger: Any) -> Proxy:
    set_process_name(f"paraproxy/{spec.core}", f"paraglider: {spec.name}")
    pin(spec.core)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if not has_policies(spec.registry):  # policies must not run with these privileges
        _warm_up(spec, loop)
    bound = room(len(spec.listeners))
    events = SocketEvents(loop)
    proxy = build(spec.config, spec.number, loop, events, spec.listeners, bound, spec.registry)
    proxy.apply_states(spec.states)
    if logger.is_enabled_for(logging.DEBUG):
        proxy.trace(FlowLog(logger))
    gc.collect()
    gc.freeze()
    gc.disable()
    return proxy


def _begin_policies(spec: ProxySpec, loop: asyncio.AbstractEventLoop, logger: Any) -> None:
    """Import the policies with the privileges of the worker's user, and warm up with them."""
    for failure in policies.import_all(spec.registry, policy_watch.mark_imports(spec.heartbeat)):
        logger.error("policy not imported", error=failure)
    _warm_up(spec, loop)


def room(listeners: int) -> int:
    """Raise the limit of file descriptors to its maximum; returns how many connections fit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max((most - listeners - _SPARE_FILES) // _FILES_A_CONNECTION, 1)


def _warm_up(spec: ProxySpec, loop: asyncio.AbstractEventLoop) -> None:
    """Pick a backend for every service, and relay a few bytes between two local sockets.

    This moves Python's lazy initialisation and imports before the first connection and before
    chroot.
    """
    for service in make_services(spec.config, listens, spec.number, spec.registry):
        key = service.vip * 2 + bytes(2) + service.ports[0][0].to_bytes(2, "big")
        header("v1", key)
        if service.pool.ready:
            service.strategy.pick(NewFlow(TCP, key, loop.time()))
    client, near = socket.socketpair()
    far, backend = socket.socketpair()
    for end in (client, near, far, backend):
        end.setblocking(False)
    events = SocketEvents(loop)
    events.watch(far.fileno(), WRITE, lambda _mask: None)
    shared = Shared(loop, events, established=1.0, closing=1.0)
    relay = Relay(shared, near, far, Tally(), lambda _relay: loop.stop(), b"first")
    client.close()
    backend.close()
    relay.start()
    loop.run_forever()  # to where the relay closes, or at once where it has
    events.close()


class ProxySubject:
    """Applies the supervisor's messages to ``proxy``, which was built for ``spec``."""

    def __init__(self, spec: ProxySpec, proxy: Proxy) -> None:
        self._spec = spec
        self._proxy = proxy
        self.config = spec.config

    @property
    def view(self) -> ProxyView:
        """See ``commands.Subject``."""
        return self._proxy.view

    def set_states(self, states: States) -> None:
        """See ``commands.Subject``."""
        self._proxy.apply_states(states)

    def suspend(self, services: list[str]) -> None:
        """See ``commands.Subject``."""
        policies.suspend(self._spec.registry, services)

    def carry(self, on: bool) -> None:
        """See ``commands.Subject``: a proxy worker relays the bytes itself."""

    def apply_config(self, config: Config) -> None:
        """See ``commands.Subject``."""
        wanted = config.listening
        with self._spec.heartbeat.long_work():
            self._proxy.apply_config(wanted, self.config, self._spec.number, self._spec.registry)
        policy_watch.mark(self._proxy.services, self._spec.heartbeat)
        self.config = wanted


class CommandReader:
    """Handles the messages of ``endpoint``, in slices (``commands``)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: IpcEndpoint,
        subject: Subject,
        life: Heartbeat,
        logger: Any,
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._commands = Commands(endpoint, subject, life)
        self._log = logger
        self._again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Handle the messages that wait, before the first connection, and receive from now on."""
        self._loop.add_reader(self._endpoint.fileno(), self._receive)
        self._receive()

    def _receive(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        try:
            self._commands.tick(self._loop.time())
        except EndpointError as error:  # if the parent has died, the kernel ends this process too
            self._loop.remove_reader(self._endpoint.fileno())
            self._log.warning("supervisor: connection failed", error=str(error))
            return
        if self._commands.busy:
            self._again = self._loop.call_later(PAUSE, self._receive)


class ProxyMonitor:
    """Twice a second: expires connections, writes counters by ``writer``, and logs failed
    connections, once a minute per backend.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        proxy: Proxy,
        logger: Any,
        writer: CounterWriter | None = None,
    ) -> None:
        self._loop = loop
        self._proxy = proxy
        self._log = logger
        self._writer = writer
        self._poll_policies = policy_watch.watch(lambda: proxy.services, logger)
        self._logged: dict[tuple[str, str], tuple[int, float]] = {}
        loop.set_exception_handler(self._fault)

    def start(self) -> None:
        """Poll now, and every TICK seconds from then on."""
        self.poll(self._loop.time())
        self._loop.call_later(TICK, self.start)

    def poll(self, now: float) -> None:
        """Do one round at ``now`` (monotonic seconds)."""
        self._proxy.expire(now, EXPIRY_BUDGET)
        if self._writer is not None:
            self._writer.tick()
        self._poll_policies(now)
        for service, tallies in self._proxy.tallies.items():
            for backend, tally in tallies.items():
                self._log_failures(service, backend, tally, now)
        exhausted = self._proxy.exhausted
        if self._is_new("", "", exhausted, now):
            self._log.error("no socket left to accept with", times=exhausted)

    def _log_failures(self, service: str, backend: Backend, tally: Tally, now: float) -> None:
        if self._is_new(service, backend.name, tally.refused + tally.timeouts, now):
            troubles = {"refused": tally.refused, "timeouts": tally.timeouts}
            found = {name: count for name, count in troubles.items() if count}
            where = {"service": service, "backend": backend.name}
            self._log.warning("backend does not accept connections", **where, **found)

    def _is_new(self, service: str, backend: str, count: int, now: float) -> bool:
        before, again = self._logged.get((service, backend), (0, 0.0))
        if count <= before or now < again:
            return False
        self._logged[service, backend] = (count, now + AGAIN)
        return True

    def _fault(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self._log.error("fault", what=context.get("message"), exc_info=context.get("exception"))


class ProxyCounts:
    """The counters of the worker of ``proxy``, as ``counters.CounterSource``."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.traffic = proxy.traffic

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        live = self._proxy.live
        bound = self._proxy.bound
        return {"flows": live, "active": live, "bound": bound, **_own_counts(self._proxy)}


def _own_counts(proxy: Proxy) -> dict[str, int]:
    """The counters that belong to no backend."""
    return {
        "conns": sum(b.conns for s in proxy.services for b in s.pool.backends),
        "unserved": proxy.unserved,
        "exhausted": proxy.exhausted,
        **policy_watch.counts(proxy.services),
    }


def counts(proxy: Proxy) -> dict[str, int]:
    """Connections by outcome, bytes and faults, over all backends, without zeros."""
    totals = _own_counts(proxy)
    for tallies in proxy.tallies.values():
        for tally in tallies.values():
            for name, count in tally.counts().items():
                totals[name] = totals.get(name, 0) + count
    return {name: count for name, count in totals.items() if count}
