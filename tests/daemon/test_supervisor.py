"""The supervisor with workers that only play dead or alive: no queue, no root.

Each test forks a process that runs a ``Supervisor`` with a worker function of the test's.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config, TimeoutsConfig
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import log
from paraglider.daemon.ipc import Frame, encode
from paraglider.daemon.messages import KilledFlows, SuspendPolicies
from paraglider.daemon.processes import hangs, manager, spec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import FIRST_WAIT, ProcessManager
from paraglider.daemon.processes.notify import Notifier
from paraglider.daemon.processes.spec import READY, Run, StartupState
from paraglider.daemon.supervisor import Supervisor
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.errors import ParagliderError

PATIENCE = 15.0  # seconds until something that must happen counts as not happening
BAD, OTHER = 999, 777  # numbers that the controller fails at, and that another worker sends
STOP = 2.0  # seconds within which SIGTERM must end everything


class DaemonController:
    """A controller that logs what it receives, and greets every process that is ready."""

    def attach(self, children: ProcessManager) -> None:
        """These are its processes."""
        self._children = children

    def startup_state(self) -> StartupState:
        """Nothing has changed."""
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
        log.logger().info("gone", worker=child.spec.index, endpoint=str(child.endpoint))

    def on_hang(self, child: Child) -> dict[str, str]:
        """Something."""
        return {"deciding": "web"}

    def ready(self) -> None:
        """Log it."""
        log.logger().info("first time")

    def turn(self, now: float) -> float:
        """Nothing is ever due."""
        return 3600.0

    def on_hangup(self, done: Callable[[], object]) -> None:
        """Log it."""
        log.logger().info("reload")
        done()

    def close(self) -> None:
        """Nothing is left to do."""


class Supervised:
    """A supervisor in a process of its own; its log, and the workers that reported."""

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
            config = Config.model_construct(timeouts=TimeoutsConfig(drain=int(PATIENCE)))
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
        """All that was logged."""
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
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

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
        return not any(alive(int(pid)) for pids in notes for pid in pids)

    def kill_all(self) -> None:
        """End what a failed test left."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for path in self.directory.glob("worker*"):
            for pid in path.read_text().split():
                if alive(int(pid)):
                    os.kill(int(pid), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and waits for its parent does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """A function that starts a supervisor of workers with a given life."""
    made: list[Supervised] = []

    def start(
        life: Callable[[WorkerSpec, int], int],
        workers: int = 2,
        proxied: bool = False,
        **constants: float,
    ) -> Supervised:
        directory = tmp_path / str(len(made))
        directory.mkdir()

        def run(spec: WorkerSpec, report: int, parent: int) -> int:
            assert parent == os.getppid()
            with (directory / f"worker{spec.index}").open("a") as notes:
                notes.write(f"{os.getpid()}\n")
            return life(spec, report)

        made.append(Supervised(directory, run, workers, constants, proxied))
        return made[-1]

    yield start
    for one in made:
        one.kill_all()


def serve(_spec: WorkerSpec, report: int) -> int:
    """A worker that is ready, and ends when it is asked to."""
    os.write(report, READY)
    signal.sigwait((signal.SIGTERM,))
    return 0


def ready_then_die(_spec: WorkerSpec, report: int) -> int:
    """A worker that gets ready and ends at once."""
    os.write(report, READY)
    return 3


def ready_then_deaf(_spec: WorkerSpec, report: int) -> int:
    """A worker that does not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.write(report, READY)
    while True:
        signal.pause()


def silent(_spec: WorkerSpec, _report: int) -> int:
    """A worker that never gets ready."""
    signal.sigwait((signal.SIGUSR1,))
    return 0


def test_all_start_and_end(supervise: Any) -> None:
    """Every worker starts, the log says so, and SIGTERM ends them all with exit code 0."""
    running = supervise(serve, workers=3)
    running.await_events("ready")
    assert len(running.events("worker ready")) == 3
    assert [len(running.workers(i)) for i in range(3)] == [1, 1, 1]
    assert any("core=12" in line for line in running.events("worker ready"))
    running.end()
    assert running.status == 0
    assert running.nobody_left()
    assert running.events("ended")
    assert "level=error" not in running.log()


def test_all_ready_is_told_once(supervise: Any) -> None:
    """When all serve, before the log says so; not again when one is replaced."""
    running = supervise(serve)
    running.await_events("ready")
    assert re.search(r"first time.*\n.*event=ready", running.log())
    os.kill(running.workers(0)[0], signal.SIGKILL)
    running.await_events("worker ready", 3)
    assert len(running.events("first time")) == 1


def test_all_ready_is_not_told_where_one_is_missing(supervise: Any) -> None:
    """A worker that cannot start means that nothing has been taken over."""
    running = supervise(lambda spec, report: serve(spec, report) if spec.index else 2)
    running.wait_until(running.ended)
    assert running.events("first time") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_deaf_workers_do_not_keep_it(supervise: Any, number: signal.Signals) -> None:
    """A worker that ignores SIGTERM is killed: two seconds are enough to end."""
    running = supervise(ready_then_deaf)
    running.await_events("ready")
    assert running.end(number) < STOP
    assert running.status == 0
    assert running.nobody_left()
    assert len(running.events("worker exited with an error")) == 2


def test_a_dead_worker_is_replaced(supervise: Any) -> None:
    """A worker that is killed is back, with the event in the log; the others are not touched."""
    running = supervise(serve)
    running.await_events("ready")
    victim, other = running.workers(0)[0], running.workers(1)
    os.kill(victim, signal.SIGKILL)
    running.await_events("worker ready", 3)
    assert len(running.workers(0)) == 2
    assert running.workers(1) == other
    (line,) = running.events("worker died")
    assert all(word in line for word in ("worker=0", "core=10", f"pid={victim}", "cause=SIGKILL"))
    running.end()
    assert running.status == 0
    assert running.nobody_left()


def test_a_worker_that_lived_comes_back_without_a_pause(supervise: Any) -> None:
    """Only early deaths cost a pause: with a long first one, who lived long is back before it."""
    running = supervise(serve, workers=1, LONG_ENOUGH=0.0, FIRST_WAIT=3600.0)
    for count in range(1, 4):
        running.wait_until(lambda n=count: len(running.events("worker ready")) == n)
        os.kill(running.workers(0)[-1], signal.SIGKILL)
    running.await_events("worker ready", 4)
    running.end()


def test_a_worker_that_keeps_dying_waits_longer_and_longer(supervise: Any, tmp_path: Path) -> None:
    """Each early death doubles the pause before the next start, so that nothing spins."""
    notes = tmp_path / "starts"

    def life(spec: WorkerSpec, report: int) -> int:
        if spec.index == 1:
            return serve(spec, report)
        with notes.open("a") as starts:
            starts.write(f"{time.monotonic()}\n")
        return ready_then_die(spec, report)

    running = supervise(life)
    running.wait_until(lambda: len(running.workers(0)) >= 4)
    running.await_events("worker died", 4)
    starts = [float(start) for start in notes.read_text().split()]
    for number, (one, following) in enumerate(itertools.pairwise(starts)):
        assert following - one >= FIRST_WAIT * 2**number
    assert 'cause="exit code 3"' in running.events("worker died")[0]
    assert len(running.workers(1)) == 1
    assert running.end() < STOP
    assert running.status == 0


def test_the_pause_has_a_longest(supervise: Any) -> None:
    """A worker that has died often is still tried again and again."""
    running = supervise(ready_then_die, workers=1, FIRST_WAIT=0.001, LONGEST_WAIT=0.002)
    running.wait_until(lambda: len(running.workers(0)) >= 20)
    running.end()
    assert running.status == 0


@pytest.mark.parametrize("code", [1, 2])
def test_a_worker_that_cannot_start(supervise: Any, code: int) -> None:
    """Its error is raised, with core and words, as the kind that it is; none is left running."""

    def life(spec: WorkerSpec, report: int) -> int:
        if spec.index == 1:
            os.write(report, f"{code}queue 11 has a reader; stop it".encode())
            return code
        return serve(spec, report)

    running = supervise(life, workers=3)
    running.wait_until(running.ended)
    assert running.status == code
    assert "worker 1 on core 11: queue 11 has a reader; stop it" in running.events("raised")[0]
    assert running.nobody_left()
    assert not running.events("ready")
    assert "Traceback" not in running.log()


def test_a_worker_that_fails_without_a_word(supervise: Any) -> None:
    """A fault of ours is logged by the worker, and the supervisor ends with exit code 2."""

    def life(spec: WorkerSpec, report: int) -> int:
        if spec.index == 0:
            raise RuntimeError("a fault")
        return serve(spec, report)

    running = supervise(life)
    running.wait_until(running.ended)
    assert running.status == 2
    assert "RuntimeError: a fault" in running.events("worker failed")[0]
    assert "worker 0 on core 10 did not start" in running.events("raised")[0]
    assert running.nobody_left()


def test_a_worker_that_never_gets_ready(supervise: Any) -> None:
    """It is given up after a while; none is left running."""

    def life(spec: WorkerSpec, report: int) -> int:
        return silent(spec, report) if spec.index == 1 else serve(spec, report)

    running = supervise(life, START_PATIENCE=0.3)
    running.wait_until(running.ended)
    assert running.status == 2
    assert "worker 1 on core 11 did not start" in running.events("raised")[0]
    assert running.nobody_left()


def test_sigterm_while_workers_start(supervise: Any) -> None:
    """Who is told to end while its workers still start does not wait for them."""
    running = supervise(silent)
    running.wait_until(lambda: running.workers(0) and running.workers(1))
    assert running.end() < STOP
    assert running.status == 0
    assert running.nobody_left()
    assert not running.events("ready")


def slow_again(directory: Path) -> Callable[[WorkerSpec, int], int]:
    """Worker 0 gets ready the first time and never again; the others always."""

    def life(spec: WorkerSpec, report: int) -> int:
        first = directory / f"started{spec.index}"
        if spec.index == 0 and first.exists():
            return silent(spec, report)
        first.touch()
        return serve(spec, report)

    return life


def test_a_slow_restart_holds_nobody_up(supervise: Any, tmp_path: Path) -> None:
    """While one worker takes its time to come back, another that dies is replaced."""
    running = supervise(slow_again(tmp_path))
    running.await_events("ready")
    os.kill(running.workers(0)[0], signal.SIGKILL)
    running.wait_until(lambda: len(running.workers(0)) == 2)
    os.kill(running.workers(1)[0], signal.SIGKILL)
    running.await_events("worker ready", 3)
    assert len(running.workers(1)) == 2
    assert len(running.workers(0)) == 2
    assert running.end() < STOP
    assert running.status == 0


def test_a_restart_that_hangs_is_ended(supervise: Any, tmp_path: Path) -> None:
    """A worker that comes back and never gets ready is killed and started once more."""
    running = supervise(slow_again(tmp_path), START_PATIENCE=0.3)
    running.await_events("ready")
    os.kill(running.workers(0)[0], signal.SIGKILL)
    running.wait_until(lambda: len(running.workers(0)) >= 3)
    assert running.events("worker did not start")
    assert len(running.workers(1)) == 1
    running.end()
    assert running.status == 0
    assert running.nobody_left()


def test_sighup_is_a_reload(supervise: Any) -> None:
    """SIGHUP ends nothing; the controller is told to reload."""
    running = supervise(serve)
    running.await_events("ready")
    os.kill(running.pid, signal.SIGHUP)
    running.await_events("reload")
    assert not running.ended()
    running.end()
    assert running.status == 0
    assert [len(running.workers(i)) for i in range(2)] == [1, 1]


def echo(spec: WorkerSpec, report: int) -> int:
    """A worker that says whether it was greeted by its name."""
    os.write(report, READY)
    assert spec.endpoint is not None
    while True:
        select.select([spec.endpoint], [], [])
        for frame in spec.endpoint.receive():
            assert frame.message == SuspendPolicies(services=(f"worker {spec.index}",))
            spec.endpoint.send(KilledFlows(killed=spec.index))


def test_messages_go_both_ways(supervise: Any) -> None:
    """Each worker gets what is sent to it, and the supervisor what each sends; a new one too."""
    running = supervise(echo)
    running.await_events("received", 2)
    os.kill(running.workers(1)[0], signal.SIGKILL)
    running.await_events("received", 3)
    lines = sorted(running.events("received"), key=lambda line: "worker=1" in line)
    for line, worker in zip(lines, (0, 1, 1), strict=True):
        assert f"worker={worker}" in line
        assert f"number={worker}" in line
    running.end(signal.SIGKILL)


@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\0\0\0\2\0\0\0\0\0[]"])
def test_a_worker_that_sends_an_invalid_message_is_replaced(
    supervise: Any, tmp_path: Path, garbage: bytes
) -> None:
    """It ends the process that sent it; the next one has an endpoint of its own."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        os.write(report, READY)
        first = tmp_path / f"started{spec.index}"
        if spec.index == 0 and not first.exists():
            first.touch()
            os.write(spec.endpoint.fileno(), garbage)
        signal.sigwait((signal.SIGTERM,))
        return 0

    running = supervise(life)
    running.await_events("worker ready", 3)
    assert len(running.workers(1)) == 1
    (line,) = running.events("invalid message from the worker, killed")
    assert "worker=0" in line
    assert "cause=SIGKILL" in running.events("worker died")[0]
    running.end()
    assert running.status == 0


def sockets() -> int:
    """How many sockets and the like this process holds."""
    kinds = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            kinds.append(str(descriptor.readlink()))
    return sum(kind.startswith(("socket:", "anon_inode:")) for kind in kinds)


def test_a_worker_inherits_nobody_elses_descriptors(supervise: Any) -> None:
    """Of sockets it holds what its grandparent had, and its channel."""

    def life(spec: WorkerSpec, report: int) -> int:
        log.logger().info("holds", sockets=sockets())
        return serve(spec, report)

    before = sockets()
    running = supervise(life, workers=3)
    running.await_events("ready")
    assert [f"sockets={before + 1}" in line for line in running.events("holds")] == [True] * 3
    running.end()


def test_processes_share_the_objects_of_the_supervisor(supervise: Any) -> None:
    """They are frozen ahead of the fork: no collector writes into them, and so unshares them."""

    def life(spec: WorkerSpec, report: int) -> int:
        log.logger().info("frozen", most=gc.get_freeze_count() > len(gc.get_objects()))
        return serve(spec, report)

    running = supervise(life, workers=1)
    running.await_events("ready")
    (line,) = running.events("frozen")
    assert "most=true" in line
    running.end()


def ready_then_slow(_spec: WorkerSpec, report: int) -> int:
    """A worker that ends when it is asked to, some time after the supervisor's patience."""
    os.write(report, READY)
    signal.sigwait((signal.SIGTERM,))
    signal.sigtimedwait((signal.SIGUSR1,), 0.5)
    return 0


@pytest.mark.parametrize("proxied", [True, False])
def test_a_proxy_worker_may_drain(supervise: Any, proxied: bool) -> None:
    """It has as long as `timeouts.drain` says before it is killed, which another has not."""
    running = supervise(ready_then_slow, workers=not proxied, proxied=proxied, PATIENCE=0.1)
    running.await_events("ready")
    running.end()
    assert running.status == 0
    assert bool(running.events(".* exited with an error")) is not proxied
    assert running.nobody_left()


class Manager:
    """A service manager: its socket is what the environment names, and all that came is kept."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")

    def await_message(self, message: str) -> None:
        """Take what comes until ``message`` has."""
        while not self.heard or self.heard[-1].partition("\n")[0] != message:
            self.heard.append(self._socket.recv(4096).decode())


def test_the_service_manager_is_told(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That all serve, how many do, signs of life, a reload and its end, and that it stops."""
    manager = Manager(tmp_path / "notify", monkeypatch)
    running = supervise(serve)
    manager.await_message("WATCHDOG=1")
    assert manager.heard == ["READY=1", "STATUS=2 of 2 workers serve", "WATCHDOG=1"]
    manager.await_message("WATCHDOG=1")
    os.kill(running.pid, signal.SIGHUP)
    manager.await_message("RELOADING=1")
    manager.await_message("READY=1")
    os.kill(running.pid, signal.SIGTERM)
    manager.await_message("STOPPING=1")
    running.wait_until(running.ended)


def test_the_watchdog_starves_while_nobody_serves(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every worker is dead, that the loop still turns does not mean that all is well."""
    manager = Manager(tmp_path / "notify", monkeypatch)
    running = supervise(ready_then_die, FIRST_WAIT=60.0, LONGEST_WAIT=60.0)
    manager.await_message("STATUS=0 of 2 workers serve")
    for _ in range(3):
        os.kill(running.pid, signal.SIGHUP)
        manager.await_message("RELOADING=1")
        manager.await_message("READY=1")
    begin = manager.heard.index("STATUS=0 of 2 workers serve")
    assert "WATCHDOG=1" not in manager.heard[begin:]


def test_a_worker_that_hangs_is_named_killed_and_replaced(supervise: Any, tmp_path: Path) -> None:
    """One that gives no sign of life, though it runs; the others are left alone."""

    def life(spec: WorkerSpec, report: int) -> int:
        first = tmp_path / f"started{spec.index}"
        os.write(report, READY)
        hangs = spec.index == 0 and not first.exists()
        first.touch()
        while not signal.sigtimedwait((signal.SIGTERM,), 0.01):
            if not hangs:
                spec.heartbeat.beat()
        return 0

    running = supervise(life, HANG=1.0, POLL=0.05, STARVED=1.0)
    running.await_events("worker ready", 3)
    (line,) = running.events("worker 0 on core 10: no sign of life for .* killed")
    assert "deciding=web" in line
    assert [len(running.workers(index)) for index in range(2)] == [2, 1]
    running.end()
    assert running.status == 0


def test_a_worker_that_hangs_while_it_takes_over(supervise: Any, tmp_path: Path) -> None:
    """One that gives signs of life ahead of its report may hang there too; one that gives none yet
    is given time.
    """

    def life(spec: WorkerSpec, report: int) -> int:
        notes = tmp_path / "0" / f"worker{spec.index}"
        if len(notes.read_text().split()) == 2:
            if spec.index == 1:
                time.sleep(1.0)  # all of that without a sign
            else:
                with spec.heartbeat.watched():
                    time.sleep(3600.0)
        os.write(report, READY)
        while not signal.sigtimedwait((signal.SIGTERM,), 0.01):
            spec.heartbeat.beat()
        return 0

    running = supervise(life, HANG=0.5, POLL=0.05, STARVED=0.5)
    running.await_events("ready")
    for index in range(2):
        os.kill(running.workers(index)[0], signal.SIGKILL)
    running.await_events("worker ready", 4)
    assert running.events("worker 0 on core 10: no sign of life for .* killed")
    assert [len(running.workers(index)) for index in range(2)] == [3, 2]
    running.end()
    assert running.status == 0


def test_a_worker_that_hangs_at_the_end_is_not_waited_for(supervise: Any, tmp_path: Path) -> None:
    """Each is killed when its own time is over, whatever longer time another has."""

    def life(spec: WorkerSpec | ProxySpec, report: int) -> int:
        os.write(report, READY)
        if spec.role == "worker":
            time.sleep(3600.0)  # SIGTERM is blocked
        signal.sigwait((signal.SIGTERM,))
        while alive(int((tmp_path / "0" / "worker0").read_text())):
            time.sleep(0.01)
        return 0

    running = supervise(life, workers=1, proxied=True, PATIENCE=0.1)
    running.await_events("ready")
    running.end()
    assert running.events("worker exited with an error")
    assert not running.events("proxy worker exited with an error")
    assert running.nobody_left()


@pytest.mark.parametrize("call", ["fork", "pipe", "socketpair"])
def test_a_call_that_fails_is_tried_again(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """No process, no descriptor left: the daemon goes on with the workers that it has."""
    module = socket if call == "socketpair" else os
    works, refusal = getattr(module, call), BlockingIOError(11, "none left")
    scarce = tmp_path / "scarce"

    def fails(*arguments: Any) -> Any:
        if scarce.exists():
            raise refusal
        return works(*arguments)

    monkeypatch.setattr(module, call, fails)
    running = supervise(serve, FIRST_WAIT=0.01, LONGEST_WAIT=0.02)
    running.await_events("ready")
    scarce.touch()
    os.kill(running.workers(0)[0], signal.SIGKILL)
    running.await_events("worker 0 on core 10: cannot be started, tried again")
    assert not running.ended()
    scarce.unlink()
    running.await_events("worker ready", 3)
    assert len(running.events("worker 0 on core 10: cannot be started, tried again")) == 1
    assert len(running.workers(1)) == 1
    running.end()
    assert running.status == 0


def test_a_message_whose_handler_fails_ends_nothing(supervise: Any) -> None:
    """The exception is told once with its traceback, and what comes after it is handled."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        os.write(report, READY)
        for number in (BAD, BAD, 7):
            spec.endpoint.send(KilledFlows(killed=number))
        signal.sigwait((signal.SIGTERM,))
        return 0

    running = supervise(life)
    running.await_events("received", 2)
    assert len(running.events("internal error: a message from the worker")) == 1
    assert "RuntimeError" in running.log()
    assert [len(running.workers(index)) for index in range(2)] == [1, 1]
    running.end()
    assert running.status == 0


def test_a_worker_that_never_stops_sending_delays_no_other(supervise: Any, tmp_path: Path) -> None:
    """The others are served and replaced meanwhile, and the end comes at once."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.write(report, READY)
        if spec.index == 1:
            spec.endpoint.send(KilledFlows(killed=OTHER))
            signal.pause()
        os.set_blocking(spec.endpoint.fileno(), True)
        again = encode(KilledFlows(killed=1))
        while True:
            spec.endpoint.send(again)

    running = supervise(life)
    running.await_events("worker: too many messages, throttled")
    os.kill(running.workers(1)[0], signal.SIGKILL)
    running.wait_until(lambda: running.log().count(f"number={OTHER}") == 2)
    assert [len(running.workers(index)) for index in range(2)] == [1, 2]
    assert running.end() < PATIENCE
    assert running.status == 0
    assert running.nobody_left()
