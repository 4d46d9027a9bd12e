"""The host helper: the process that changes the host, and restores the set-up.

It is root with CAP_NET_ADMIN and CAP_NET_RAW, which changes of addresses, routes and rules need,
and with CAP_BPF for the links of the carrier, if there is one; the supervisor is its only peer. It
runs programs (nft, iptables), which may take long and delay no other process.

Lives here: ``HostHelperSpec``, ``run``.
Rules: one task at a time, the supervisor's requests first; requests that run no program do not wait
for one. SIGTERM ends it at once; a set-up in progress is rolled back as after any failure.
"""

from __future__ import annotations

import contextlib
import queue
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from types import FrameType
from typing import ClassVar, Final, Self

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.host_helper.adjust import HostRules
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.carrier import CarrierAttachment
from paraglider.daemon.host_helper.own_addresses import AddressReporter
from paraglider.daemon.host_helper.readings import read
from paraglider.daemon.host_helper.service import HostService
from paraglider.daemon.host_helper.turns import HostTurns
from paraglider.daemon.ipc import EndpointClosedError, EndpointError, Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import (
    Acknowledged,
    ApplyHost,
    ConnectionCounts,
    CountConnections,
    ForgetConnections,
    HostChanged,
    LoadRules,
    Message,
    ReadTables,
    Refusal,
    SwitchCarrier,
)
from paraglider.daemon.processes.bootstrap import report_error, report_ready, set_process_name
from paraglider.daemon.processes.spec import Spec, StartupState
from paraglider.daemon.shared_memory.heartbeat import INTERVAL, Heartbeat
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host import privileges
from paraglider.host.carrier import LoadedCarrier
from paraglider.host.changes.base import Host
from paraglider.host.host_events import HostEvents
from paraglider.host.reconcile import Reconciler
from paraglider.netfilter import connections
from paraglider.netfilter.conntrack import Conntrack
from paraglider.netfilter.nft import Nft

#: most seconds that consecutive programs may take (each of them 60 s: ``netfilter.programs``)
LONGEST_TURN: Final = 900.0

#: requests that run no program and wait for none
QUICK: Final = (ForgetConnections, CountConnections, ReadTables, SwitchCarrier)


@dataclass(frozen=True, slots=True)
class HostHelperSpec(Spec):
    """The startup parameters of the host helper: the configuration, the ``families`` that the
    daemon serves, and the BPF carrier; ``carries``: it is switched on.
    """

    role: ClassVar[str] = "host helper"
    config: Config
    families: frozenset[int]
    carrier: LoadedCarrier | None = None
    carries: bool = True

    @property
    def exit_timeout(self) -> float:
        """Seconds that it may take to exit: a set-up in progress is rolled back."""
        return 10.0

    def updated(self, state: StartupState) -> Self:
        """See ``spec.Spec``."""
        return replace(self, config=state.config, carries=state.carries)

    def release(self) -> None:
        """See ``spec.Spec``."""
        if self.carrier is not None:
            self.carrier.close()


def needed(config: Config) -> frozenset[int]:
    """The families that must be set up for ``config``; not for proxy services, which need only
    addresses.
    """
    return frozenset(s.family for s in config.services if s.method.queued)


def run(spec: HostHelperSpec, report: int, parent: int) -> int:
    """Run the host helper until SIGTERM; returns the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    if spec.endpoint is None:
        raise ValueError("a host helper needs an endpoint")
    try:
        set_process_name("paraglider/host", "paraglider: keeps the host as it was set up")
        more = privileges.CARRIER_CAPABILITIES if spec.carrier is not None else ()
        privileges.limit(*privileges.RECONCILER_CAPABILITIES, *more)
        privileges.die_with_parent(parent)
        events = HostEvents()
    except ParagliderError as error:
        return report_error(report, error)
    logger = log.logger(role=spec.role)
    peer = Peer(spec.endpoint)
    host = Host()  # a single one, since it caches the kernel's tables
    service = HostService(
        Reconciler(host), peer.send, logger, needed(spec.config), clock=time.monotonic
    )
    ending = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()  # Python ignores exceptions in callbacks of its collector
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # from here on SIGTERM may come
        report_ready(report)
        arrivals = Arrivals(spec.config, logger)
        carrier = None
        if spec.carrier is not None:
            carrier = CarrierAttachment(spec.carrier, spec.config, logger, on=spec.carries)
        addresses = AddressReporter(spec.config, peer.send)
        rules = HostRules(spec.families, host)
        requests = Requests(rules, service, arrivals, carrier, addresses)
        turns = HostTurns(events, service, arrivals, carrier, addresses)
        return _Work(spec.heartbeat, peer, turns, requests).run(ending)
    except SystemExit:
        return 0
    except EndpointError:  # the supervisor has exited
        return 0
    finally:
        events.close()


class Peer:
    """The endpoint to the supervisor, shared by two threads."""

    def __init__(self, endpoint: IpcEndpoint) -> None:
        self.endpoint = endpoint
        self._sending = threading.Lock()

    def send(self, message: Message, kind: Kind = Kind.MESSAGE, number: int = 0) -> None:
        """Send ``message``, and wait until it is sent; raises ``EndpointError``."""
        with self._sending:
            self.endpoint.send(message, kind, number)
            while self.endpoint.pending:
                select.select([], [self.endpoint], [])
                self.endpoint.flush()


class _Work:
    """Waits for requests, kernel events and time; a thread receives the requests, and handles those
    that need no program.
    """

    def __init__(self, life: Heartbeat, peer: Peer, turns: HostTurns, requests: Requests) -> None:
        self._life = life
        self._turn = time.monotonic()  # when the last turn of ``run`` began
        self._peer = peer
        self._turns = turns
        self._requests = requests
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._waking, self._woken = socket.socketpair()

    def run(self, ending: threading.Event) -> int:
        """Run until the supervisor has exited or ``ending`` is set; returns the exit code.

        Raises ``SystemExit`` and ``EndpointError``.
        """
        self._woken.setblocking(False)
        threading.Thread(target=self._receive, name="supervisor", daemon=True).start()
        with selectors.DefaultSelector() as selector:
            self._turns.register(selector)
            selector.register(self._woken, selectors.EVENT_READ)
            while not ending.is_set():
                self._turn = time.monotonic()
                selector.select(self._turns.pause())
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                while not self._waiting.empty():
                    frame = self._waiting.get()
                    if frame is None:
                        return 0
                    self._answer(frame)
                self._turns.turn()
        return 0

    def _receive(self) -> None:
        """The main function of the thread."""
        try:
            while True:
                if time.monotonic() - self._turn < LONGEST_TURN:
                    self._life.beat()  # programs may be slow; a turn that never ends is an error
                if not select.select([self._peer.endpoint], [], [], INTERVAL)[0]:
                    continue
                for frame in self._peer.endpoint.receive():
                    if isinstance(frame.message, QUICK):
                        self._answer(frame)
                    else:
                        self._waiting.put(frame)
                        self._waking.send(b".")
        except EndpointError as error:
            if not isinstance(error, EndpointClosedError):  # otherwise the supervisor has exited
                logger = log.logger(role=HostHelperSpec.role)
                logger.error("invalid message from the supervisor", error=str(error))
            self._waiting.put(None)
            self._waking.send(b".")

    def _answer(self, frame: Frame) -> None:
        self._peer.send(self._requests.answer(frame.message), Kind.ANSWER, frame.number)


class Requests:
    """Handles the supervisor's requests; ``rules`` are those of the daemon's families."""

    def __init__(
        self,
        rules: HostRules,
        service: HostService,
        arrivals: Arrivals,
        carrier: CarrierAttachment | None = None,
        addresses: AddressReporter | None = None,
    ) -> None:
        self._rules = rules
        self._service = service
        self._arrivals = arrivals
        self._carrier = carrier
        self._addresses = addresses

    def answer(self, request: Message) -> Message:
        """Handle ``request``; returns the answer."""
        try:
            if isinstance(request, ApplyHost):
                return self._apply(request.config)
            if isinstance(request, LoadRules):
                Nft().load(request.text)
                return Acknowledged()
            if isinstance(request, ForgetConnections):
                conntrack = Conntrack()
                conntrack.forget(list(request.marks))
                if request.passing:
                    conntrack.forget_passing(frozenset(request.passing))
                for vip, first, last in request.datagrams:
                    conntrack.forget_untranslated(vip, first, last)
                return Acknowledged()
            if isinstance(request, ReadTables):
                return read(request.families, self._carrier)
            if isinstance(request, SwitchCarrier) and self._carrier is not None:
                return self._carrier.switch(on=request.on)
            if isinstance(request, CountConnections):
                return ConnectionCounts(marks=Counter(e.mark for e in connections.dump()))
            raise PlatformError(f"{type(request).__name__} is no request to the host helper")
        except ParagliderError as error:
            return Refusal.of(error)
        except (ValueError, OSError) as error:
            what = f"{type(request).__name__} failed: {error!r}"
            return Refusal.of(PlatformError(what[:500]))

    def _apply(self, config: Config) -> HostChanged:
        done = self._rules.adjust(config)
        self._service.set_families(needed(config))
        self._arrivals.apply_config(config)
        if self._carrier is not None:
            self._carrier.apply_config(config)
        if self._addresses is not None:
            self._addresses.apply_config(config)
        return HostChanged(done=tuple(done))
