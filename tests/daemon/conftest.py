"""Fixtures of the supervisor's tests: fake workers, without queues and without root.

Each test forks a process that runs a ``Supervisor`` with a worker function of the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import TIMEOUT, runs, wait_until

from paraglider.config.model import Config, TimeoutsConfig
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import log
from paraglider.daemon.controller import controller
from paraglider.daemon.ipc import Frame
from paraglider.daemon.messages import KilledFlows, SuspendPolicies
from paraglider.daemon.processes import hangs, manager, spec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.notify import Notifier
from paraglider.daemon.processes.spec import READY, Run, StartupState
from paraglider.daemon.supervisor import Supervisor
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.errors import ParagliderError

sys.path.insert(0, str(Path(__file__).parent))  # ``stand_ins``

BAD = 999  # a number that the controller fails at


class DaemonController:
    """A controller that logs the messages it receives, and sends one to every process that is
    ready.
    """

    def attach(self, children: ProcessManager) -> None:
        """These are its processes."""
        self._children = children

    def startup_state(self) -> StartupState:
        """The initial state."""
        return StartupState(Config.model_construct(services=()), {}, STRATEGIES)

    def on_message(self, child: Child, frame: Frame) -> None:
        """Log it."""
        assert isinstance(frame.message, KilledFlows)
        if frame.message.killed == BAD:
            raise RuntimeError("a fault")
        log.logger().info("received", worker=child.spec.index, number=frame.message.killed)

    def on_ready(self, child: Child) -> None:
        """Greet it."""
        self._children.send(child, SuspendPolicies(services=(f"worker {child.spec.index}",)))

    def on_exit(self, child: Child) -> None:
        """Log it."""
        counted = {"deaths": len(child.deaths), "requested": child.requested}
        index, endpoint = child.spec.index, str(child.endpoint)
        log.logger().info("gone", worker=index, endpoint=endpoint, **counted)

    def on_hang(self, child: Child) -> dict[str, str]:
        """Something."""
        return {"deciding": "web"}

    def ready(self) -> None:
        """Log it."""
        log.logger().info("first time")

    def turn(self, now: float) -> float:
        """Nothing is due."""
        return 3600.0

    def on_hangup(self, done: Callable[[], object]) -> None:
        """Log it."""
        log.logger().info("reload")
        done()

    def stop(self) -> None:
        """Log it."""
        log.logger().info("stop")

    def close(self) -> None:
        """Nothing to do."""


class Supervised:
    """A supervisor in its own process; its log, and the workers that reported."""

    def __init__(
        self,
        directory: Path,
        run: Run,
        workers: int,
        constants: dict[str, float],
        proxied: bool = False,
    ):
        self.directory = directory
        self.log_file = directory / "log"
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = self._supervise(run, workers, constants, proxied)
            finally:
                os._exit(status)

    def _supervise(self, run: Run, workers: int, constants: dict[str, float], proxied: bool) -> int:
        with self.log_file.open("w", buffering=1) as errors:
            sys.stderr = errors
            for name, value in {"HANG": 3600.0, **constants}.items():
                for module in (manager, hangs, spec):
                    if hasattr(module, name):
                        setattr(module, name, value)
            log.set_up()
            config = Config.model_construct(timeouts=TimeoutsConfig(drain=int(TIMEOUT)))
            specs: list[WorkerSpec | ProxySpec] = [
                WorkerSpec(i, 10 + i, config, uid=0, gid=0) for i in range(workers)
            ]
            if proxied:
                specs.append(ProxySpec(workers, 0, 10, config, (), uid=0, gid=0))
            try:
                return Supervisor(specs, run, DaemonController(), Notifier()).run()
            except ParagliderError as error:
                log.logger().error("raised", error=str(error))
                return error.exit_code

    def log(self) -> str:
        """All log lines."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def events(self, event: str) -> list[str]:
        """The lines about ``event``."""
        return re.findall(rf'^.*event="?{event}"?(?: .*)?$', self.log(), re.MULTILINE)

    def await_events(self, event: str, count: int = 1) -> None:
        """Wait until ``event`` was logged ``count`` times."""
        self.wait_until(lambda: len(self.events(event)) >= count)

    def workers(self, index: int) -> list[int]:
        """The process ids that the worker ``index`` has had, in order."""
        notes = self.directory / f"worker{index}"
        return [int(pid) for pid in notes.read_text().split()] if notes.exists() else []

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for ``condition``; fail with the log when it does not come true."""
        wait_until(condition, self.log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal and wait for the end; how many seconds that took."""
        begin = time.monotonic()
        os.kill(self.pid, number)
        self.wait_until(self.ended)
        return time.monotonic() - begin

    def ended(self) -> bool:
        """The supervisor is gone; ``status`` is then its exit code."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def nobody_left(self) -> bool:
        """Every worker that reported is gone."""
        notes = [path.read_text().split() for path in self.directory.glob("worker*")]
        return not any(runs(int(pid)) for pids in notes for pid in pids)

    def kill_all(self) -> None:
        """Kill processes that a failed test left."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for path in self.directory.glob("worker*"):
            for pid in path.read_text().split():
                # With the supervisor gone it may end at any time.
                with contextlib.suppress(ProcessLookupError):
                    if runs(int(pid)):
                        os.kill(int(pid), signal.SIGKILL)


class Supervise:
    """Starts supervisors of workers with a given life; some lives are at hand."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Supervised] = []

    def __call__(
        self,
        life: Callable[[WorkerSpec, int], int],
        workers: int = 2,
        proxied: bool = False,
        **constants: float,
    ) -> Supervised:
        """A supervisor of ``workers`` with that life, and with these constants."""
        directory = self._directory / str(len(self._made))
        directory.mkdir()

        def run(spec: WorkerSpec, report: int, parent: int) -> int:
            assert parent == os.getppid()
            with (directory / f"worker{spec.index}").open("a") as notes:
                notes.write(f"{os.getpid()}\n")
            return life(spec, report)

        self._made.append(Supervised(directory, run, workers, constants, proxied))
        return self._made[-1]

    def close(self) -> None:
        """Kill processes that failed tests left."""
        for one in self._made:
            one.kill_all()

    @staticmethod
    def serve(_spec: WorkerSpec, report: int) -> int:
        """A worker that is ready, and exits on request."""
        os.write(report, READY)
        signal.sigwait((signal.SIGTERM,))
        return 0

    @staticmethod
    def ready_then_die(_spec: WorkerSpec, report: int) -> int:
        """A worker that gets ready and ends at once."""
        os.write(report, READY)
        return 3

    @staticmethod
    def ready_then_deaf(_spec: WorkerSpec, report: int) -> int:
        """A worker that does not listen to SIGTERM."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.write(report, READY)
        while True:
            signal.pause()

    @staticmethod
    def silent(_spec: WorkerSpec, _report: int) -> int:
        """A worker that never gets ready."""
        signal.sigwait((signal.SIGUSR1,))
        return 0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer waits until the workers have applied the change, however late the test goes on."""
    monkeypatch.setattr(controller, "SOON", 3600.0)


@pytest.fixture
def connect_as() -> Iterator[Callable[[Path, int], socket.socket]]:
    """A function that connects to a Unix socket as another user, whom no mode keeps out."""
    made: list[socket.socket] = []

    def connect(path: Path, uid: int) -> socket.socket:
        path.chmod(0o666)
        path.parent.chmod(0o755)
        here = os.open(path.parent, os.O_PATH)  # the directories above are root's
        made.append(socket.socket(socket.AF_UNIX))
        os.seteuid(uid)
        try:
            made[-1].connect(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.seteuid(0)
            os.close(here)
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts supervisors, which are gone after the test."""
    supervise = Supervise(tmp_path)
    yield supervise
    supervise.close()
