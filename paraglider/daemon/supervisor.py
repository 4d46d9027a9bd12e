"""The supervisor: the parent of all processes, and their loop.

It reads nothing from the network. It waits for signals, messages and time
(``processes.loop``), starts and replaces processes (``processes.manager``) and runs the
controller's turns. SIGTERM or SIGINT ends all processes, by SIGKILL those that do not exit in time;
SIGHUP reloads the configuration. systemd is notified of each step (``processes.notify``); its
watchdog is fed while any process with flows is running and does not hang. Once all processes are
ready, no failure ends the daemon: it is logged (``processes.faults``), and the loop continues.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from paraglider.daemon import log
from paraglider.daemon.processes.child import Owner
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.notify import Notifier
from paraglider.daemon.processes.spec import CARRIERS, Run, Spec

_END: Final = frozenset((signal.SIGTERM, signal.SIGINT))
#: pause, in seconds, after the wait itself failed
BREATH: Final = 0.05
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGHUP, *_END)


class SupervisedController(Owner, Protocol):
    """What the supervisor needs of the controller."""

    def attach(self, children: ProcessManager) -> None:
        """Set its processes."""

    def ready(self) -> None:
        """Called when every process is ready for the first time."""

    def turn(self, now: float) -> float:
        """Do what is due at ``now``; returns the seconds until the next turn, at most."""

    def on_hangup(self, done: Callable[[], object]) -> None:
        """SIGHUP: reload the configuration; ``done`` is called when the workers have applied it, or
        when it failed.
        """

    def stop(self) -> None:
        """Called before the processes are ended."""

    def close(self) -> None:
        """Called when all processes have exited."""


class Supervisor:
    """The processes of one Paraglider, and their controller."""

    def __init__(
        self,
        specs: Sequence[Spec],
        run: Run,
        controller: SupervisedController,
        notifier: Notifier | None = None,
    ) -> None:
        self._specs = specs
        self._run = run
        self._controller = controller
        self._notifier = notifier or Notifier({})
        self._faults = Faults()
        self._log: Any = log.logger()

    def run(self) -> int:
        """Start every process and supervise them until SIGTERM or SIGINT; returns the exit code.

        Raises the error of the first process that failed to start; then none is left running.
        """
        with Loop(_SIGNALS) as loop:
            children = ProcessManager(self._specs, self._run, loop, self._controller, self._faults)
            self._controller.attach(children)
            # The collector writes into every object that it visits: frozen objects stay shared
            # with the forked processes, whose collectors skip them.
            gc.collect()
            gc.freeze()
            try:
                children.start_all()
                self._supervise(children, loop)
            finally:
                self._controller.stop()
                children.end_all()
                # It is stopping already: a second signal does not interrupt that.
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
                self._controller.close()
                self._notifier.flush()
        self._log.info("ended")
        return 0

    def _supervise(self, children: ProcessManager, loop: Loop) -> None:
        ready = False
        while True:
            if not ready and not children.starting:
                ready = True
                children.started()
                self._controller.ready()
                self._log.info("ready", workers=sum(c.spec.role in CARRIERS for c in children))
                self._notifier.ready()
            pause = children.wait()
            if ready:
                with self._faults.contained("the controller"):
                    now = time.monotonic()
                    pause = min(self._controller.turn(now), self._sign_of_life(children, now))
            caught = self._wait(loop, min(pause, children.wait()), strict=not ready)
            if ended := _END & caught:
                name = ", ".join(number.name for number in sorted(ended))
                self._log.info("stopping", signal=name)
                self._notifier.stopping()
                return
            if signal.SIGHUP in caught:
                self._notifier.reloading()
                with self._faults.contained("a reload"):
                    self._controller.on_hangup(self._notifier.ready)
            if ready:
                with self._faults.contained("care for the processes"):
                    children.poll()
            else:
                children.poll()

    def _wait(self, loop: Loop, pause: float, *, strict: bool) -> frozenset[signal.Signals]:
        """As ``Loop.wait``; unless ``strict``, its failures are logged."""
        try:
            return loop.wait(pause)
        except Exception as error:
            if strict:
                raise
            self._faults.note("what came in", error)
            time.sleep(BREATH)  # in case it fails again at once
            return frozenset()

    def _sign_of_life(self, children: ProcessManager, now: float) -> float:
        """Notify systemd of the number of running processes; returns the seconds until the next
        time.
        """
        carriers = [child for child in children if child.spec.role in CARRIERS]
        serving = sum(child.up for child in carriers)
        self._notifier.status(f"{serving} of {len(carriers)} workers serve")
        return self._notifier.beat(now) if serving else self._notifier.flush()
