"""`paraglider start --watch`: repairs the set-up of a host, in the foreground, without a daemon.

Does for `start` what the host helper (``host_helper.process``) does for the daemon: the same
comparisons, with the same privileges. Conditions are logged when they begin and end, and summarised
to the service manager.

Lives here: ``keep``, ``only_keeper``.
Rules: repairs the last set-up, also that of a later `start`; exits when nothing is set up any more
(`stop`).
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
    """The lock of the watching process, held until it is closed; raises ``OperatorError`` if
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
    """Restore what other programs remove, until SIGTERM or SIGINT, or until nothing is set up.

    Raises ``PlatformError`` if the kernel refuses to report changes.
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
        """Whether anything is set up; applies a later `start`."""
        try:
            config = self._reconciler.config()
        except ParagliderError:  # reported by the comparisons
            return True
        if config is None:
            return False
        self._arrivals.apply_config(config)
        return True

    def _notify(self, message: Message) -> None:
        """Report the conditions of the service; restored tables need no further work."""
        if isinstance(message, HostConditions):
            found = message.found.items()
            self._conditions.report("host", {n: Condition(how, text) for n, (how, text) in found})

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._ending = signal.Signals(number)
        self._waking.send(b".")
