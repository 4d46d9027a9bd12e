"""The reconciler: the process that changes the host, and keeps it as it was set up.

It is root with CAP_NET_ADMIN and CAP_NET_RAW, as changing addresses, routes and rules needs, and
speaks with nobody but the hub. It runs programs (nft, iptables), which may take as long as they
take: only what it does waits for them.

Lives here: ``ReconcilerSpec``, ``run``.
Rules: one thing at a time, the hub's orders first; but orders that run no program do not wait for
one. SIGTERM ends it at once; a set-up that is at work is rolled back as after any failure.
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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, ClassVar, Final, Self

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.host_helper.adjust import HostRules
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.messages import refusal
from paraglider.daemon.host_helper.readings import read
from paraglider.daemon.host_helper.service import HostService
from paraglider.daemon.host_helper.turns import HostTurns
from paraglider.daemon.processes.bootstrap import introduce, refused, serves
from paraglider.daemon.processes.channel import (
    Channel,
    ChannelClosedError,
    ChannelError,
    Message,
)
from paraglider.daemon.processes.heartbeat import INTERVAL, Life
from paraglider.daemon.processes.spec import Equipment, Spec
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host import privileges
from paraglider.host.changes.base import Host
from paraglider.host.host_events import HostEvents
from paraglider.host.reconcile import Reconciler
from paraglider.netfilter import connections
from paraglider.netfilter.conntrack import Conntrack
from paraglider.netfilter.nft import Nft

#: seconds that programs may take in a row (each of them 60 s: ``netfilter.programs``)
LONGEST_TURN: Final = 900.0

#: orders that run no program, and wait for none
QUICK: Final = frozenset({"forget", "count", "read"})


@dataclass(frozen=True, slots=True)
class ReconcilerSpec(Spec):
    """All that the reconciler is told at its start: the configuration, and the ``families`` that
    the daemon serves.
    """

    role: ClassVar[str] = "reconciler"
    config: Config
    families: frozenset[int]

    @property
    def patience(self) -> float:
        """A set-up that is at work is rolled back."""
        return 10.0

    def equipped(self, equipment: Equipment) -> Self:
        """See ``children.Spec``."""
        return replace(self, config=equipment.config)


def needed(config: Config) -> frozenset[int]:
    """The families that have to be set up for ``config``: proxied connections end here, and need
    nothing but addresses.
    """
    return frozenset(s.family for s in config.services if s.forward != "proxy")


def run(spec: ReconcilerSpec, report: int, parent: int) -> int:
    """Be the reconciler until SIGTERM; the exit code of the process.

    ``report`` is the pipe to the supervisor, ``parent`` its process id.
    """
    if spec.channel is None:
        raise ValueError("there is no hub to hear")
    try:
        introduce("paraglider/host", "paraglider: keeps the host as it was set up")
        privileges.limit(*privileges.RECONCILER_CAPABILITIES)
        privileges.die_with_parent(parent)
        events = HostEvents()
    except ParagliderError as error:
        return refused(report, error)
    logger = log.logger(role=spec.role)
    voice = Voice(spec.channel)
    host = Host()  # one, for what it remembers of the kernel's tables
    service = HostService(
        Reconciler(host), voice.send, logger, needed(spec.config), clock=time.monotonic
    )
    ending = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()  # Python ignores what is raised in a callback of its collector
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    serves(report)
    arrivals = Arrivals(spec.config, logger)
    orders = Orders(HostRules(spec.families, host), service, arrivals)
    try:
        return _Work(spec.life, voice, HostTurns(events, service, arrivals), orders).run(ending)
    except SystemExit:
        return 0
    except ChannelError:  # the supervisor is gone
        return 0
    finally:
        events.close()


class Voice:
    """The channel to the hub, for two threads."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._speaking = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send ``message``, and wait until it is sent; raises ``ChannelError``."""
        with self._speaking:
            self.channel.send(message)
            while self.channel.waiting:
                select.select([], [self.channel], [])
                self.channel.flush()


class _Work:
    """Waits for the hub, for the kernel and for time; the hub is heard by a thread, which does
    what needs no program by itself.
    """

    def __init__(self, life: Life, voice: Voice, turns: HostTurns, orders: Orders) -> None:
        self._life = life
        self._turn = time.monotonic()  # when the last turn of ``run`` began
        self._voice = voice
        self._turns = turns
        self._do = orders
        self._orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._waking, self._woken = socket.socketpair()

    def run(self, ending: threading.Event) -> int:
        """Until the hub is gone or ``ending`` is set; the exit code.

        Raises ``SystemExit`` and ``ChannelError``.
        """
        self._woken.setblocking(False)
        threading.Thread(target=self._converse, name="hub", daemon=True).start()
        with selectors.DefaultSelector() as selector:
            self._turns.register(selector)
            selector.register(self._woken, selectors.EVENT_READ)
            while not ending.is_set():
                self._turn = time.monotonic()
                selector.select(self._turns.pause())
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                while not self._orders.empty():
                    order = self._orders.get()
                    if order is None:
                        return 0
                    self._answer(order)
                self._turns.turn()
        return 0

    def _converse(self) -> None:
        """The thread's part."""
        try:
            while True:
                if time.monotonic() - self._turn < LONGEST_TURN:
                    self._life.beat()  # programs may be slow; a turn that never ends is a fault
                if not select.select([self._voice.channel], [], [], INTERVAL)[0]:
                    continue
                for order in self._voice.channel.receive():
                    if order.get("do") in QUICK:
                        self._answer(order)
                    else:
                        self._orders.put(order)
                        self._waking.send(b".")
        except ChannelError as error:
            if not isinstance(error, ChannelClosedError):  # else the supervisor is gone
                log.logger(role=ReconcilerSpec.role).error("the hub is not heard", error=str(error))
            self._orders.put(None)
            self._waking.send(b".")

    def _answer(self, order: Message) -> None:
        self._voice.send({**self._do.do(order), "re": order.get("id")})


class Orders:
    """Does what the hub orders, by ``rules`` of the daemon's families."""

    def __init__(self, rules: HostRules, service: HostService, arrivals: Arrivals) -> None:
        self._rules = rules
        self._service = service
        self._arrivals = arrivals

    def do(self, order: Message) -> Message:
        """The answer to ``order``, without its number."""
        kind = order.get("do")
        try:
            if kind == "adjust":
                return self._adjust(Config.model_validate(order["config"]))
            if kind == "hash":
                Nft().load(str(order["text"]))
                return {}
            if kind == "forget":
                conntrack = Conntrack()
                conntrack.forget([int(mark) for mark in order["marks"]])
                if order["passing"]:
                    conntrack.forget_passing(frozenset(map(int, order["passing"])))
                for vip, first, last in order["datagrams"]:
                    conntrack.forget_untranslated(str(vip), int(first), int(last))
                return {}
            if kind == "read":
                return {"reading": read(map(int, order["families"])).plain()}
            if kind == "count":
                counts = Counter(str(event.mark) for event in connections.dump())
                return {"marks": dict(counts)}
            raise PlatformError(f"the reconciler has no order {str(kind)[:40]!r}")
        except ParagliderError as error:
            return refusal(error)
        except (KeyError, TypeError, ValueError, OSError) as error:
            return refusal(PlatformError(f"the order {kind} failed: {error!r}"[:500]))

    def _adjust(self, config: Config) -> Message:
        done = self._rules.adjust(config)
        self._service.need(needed(config))
        self._arrivals.adopt(config)
        return {"done": done}
