"""Keeps a host as `paraglider start` has set it up, in the foreground and without a daemon.

It is to `start` what the reconciler (``host_helper.process``) is to the daemon: the same looks, and
the
same rights. What is wrong goes into the log, a line when it begins and one when it ends, and as one
word to the service manager.

Lives here: ``keep``, ``only_keeper``.
Rules: what is kept is what was set up last, whoever has run `start` since; where nothing is any
more (`stop`), there is nothing to do and it ends.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from types import FrameType
from typing import Any, Final

from paraglider.daemon import log
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.service import HostService
from paraglider.daemon.host_helper.turns import HostTurns
from paraglider.daemon.messages import HostConditions, Message
from paraglider.daemon.processes.notify import Notifier
from paraglider.errors import OperatorError, ParagliderError
from paraglider.host import privileges
from paraglider.host.host_events import HostEvents
from paraglider.host.lock import LockFile
from paraglider.host.ownership import lock_path
from paraglider.host.reconcile import Reconciler

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)


def only_keeper() -> LockFile:
    """The lock of who keeps this host, held until it is closed; raises ``OperatorError`` where
    another process has it.
    """
    try:
        return LockFile(lock_path("keeper"))
    except BlockingIOError:
        raise OperatorError(
            "another `paraglider start --watch` keeps this host",
            "run `paraglider start` without it: what it sets up is kept too",
        ) from None


def keep(notifier: Notifier) -> None:
    """Put back what others take away, until SIGTERM or SIGINT, or until nothing is set up.

    Raises ``PlatformError`` where the kernel refuses to tell of changes.
    """
    logger = log.logger(role="keeper")
    privileges.limit(*privileges.RECONCILER_CAPABILITIES)
    events = HostEvents()
    try:
        _Keeper(events, notifier, logger).run()
    finally:
        events.close()


class _Keeper:
    def __init__(self, events: HostEvents, notifier: Notifier, logger: Any) -> None:
        self._reconciler = Reconciler()
        self._conditions = Conditions()
        self._notifier = notifier
        self._log = logger
        config = self._reconciler.config()
        if config is None:
            raise OperatorError("nothing is started here", "see `paraglider show`")
        self._arrivals = Arrivals(config, logger)
        service = HostService(self._reconciler, self._notify, logger, (), clock=time.monotonic)
        self._turns = HostTurns(events, service, self._arrivals)
        self._ending: signal.Signals | None = None
        self._waking, self._woken = socket.socketpair()

    def run(self) -> None:
        """See ``keep``."""
        for number in _ENDS:
            signal.signal(number, self._end)
        self._woken.setblocking(False)
        self._log.info("ready")
        self._notifier.ready()
        with selectors.DefaultSelector() as selector:
            self._turns.register(selector)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._ending is None and self._is_started():
                self._turns.turn()
                now = time.monotonic()
                self._notifier.status(self._conditions.status)
                selector.select(min(self._turns.pause(), self._notifier.beat(now)))
        why = "`paraglider stop`" if self._ending is None else self._ending.name
        self._notifier.stopping()
        self._log.info("ended", why=why)

    def _is_started(self) -> bool:
        """Whether there is anything to keep; takes over what was started since."""
        try:
            config = self._reconciler.config()
        except ParagliderError:  # told of by the looks
            return True
        if config is None:
            return False
        self._arrivals.apply_config(config)
        return True

    def _notify(self, message: Message) -> None:
        """What the service finds wrong; tables that were restored are complete without more."""
        if isinstance(message, HostConditions):
            found = message.found.items()
            self._conditions.report("host", {n: Condition(how, text) for n, (how, text) in found})

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._ending = signal.Signals(number)
        self._waking.send(b".")
