"""Processes are started, replaced when they die, hang or cannot be forked, and ended."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import LIMITS, TIMEOUT, ends_at_its_limit, runs, wait_until

from paraglider.daemon.processes import manager
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.processes.manager import FIRST_WAIT
from paraglider.daemon.processes.spec import READY
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec

STOP = 30.0  # seconds: it takes two, and what SIGTERM does not end is waited for a minute


def test_a_dead_worker_is_replaced(supervise: Any) -> None:
    """A worker that is killed is back, with the event in the log, and the death is counted; the
    others are not touched.
    """
    running = supervise(supervise.serve)
    running.await_events("ready")
    victim, other = running.workers(0)[0], running.workers(1)
    os.kill(victim, signal.SIGKILL)
    running.await_events("worker ready", 3)
    assert len(running.workers(0)) == 2
    assert running.workers(1) == other
    (line,) = running.events("worker died")
    assert all(word in line for word in ("worker=0", "core=10", f"pid={victim}", "cause=SIGKILL"))
    (gone,) = running.events("gone")
    assert all(word in gone for word in ("worker=0", "deaths=1", "requested=false"))
    running.end()
    assert running.status == 0
    assert running.nobody_left()


def test_a_worker_that_lived_comes_back_without_a_pause(supervise: Any) -> None:
    """Only early deaths cause a pause: with a long first pause, a process that lived long is back
    sooner.
    """
    running = supervise(supervise.serve, workers=1, LONG_ENOUGH=0.0, FIRST_WAIT=3600.0)
    for count in range(1, 4):
        running.wait_until(lambda n=count: len(running.events("worker ready")) == n)
        os.kill(running.workers(0)[-1], signal.SIGKILL)
    running.await_events("worker ready", 4)
    running.end()


def test_a_worker_that_keeps_dying_waits_longer_and_longer(supervise: Any, tmp_path: Path) -> None:
    """Each early death doubles the pause before the next start."""
    notes = tmp_path / "starts"

    def life(spec: WorkerSpec, report: int) -> int:
        if spec.index == 1:
            return supervise.serve(spec, report)
        with notes.open("a") as starts:
            starts.write(f"{time.monotonic()}\n")
        return supervise.ready_then_die(spec, report)

    running = supervise(life, LONG_ENOUGH=3600.0)  # however late a death is seen
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
    running = supervise(supervise.ready_then_die, workers=1, FIRST_WAIT=0.001, LONGEST_WAIT=0.002)
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
        return supervise.serve(spec, report)

    running = supervise(life, workers=3)
    running.wait_until(running.ended)
    assert running.status == code
    assert "worker 1 on core 11: queue 11 has a reader; stop it" in running.events("raised")[0]
    assert running.nobody_left()
    assert not running.events("ready")
    assert "Traceback" not in running.log()


def test_a_worker_that_never_gets_ready(supervise: Any) -> None:
    """The start fails after a while; no process is left running."""

    def life(spec: WorkerSpec, report: int) -> int:
        return supervise.silent(spec, report) if spec.index == 1 else supervise.serve(spec, report)

    def refused(limit: int) -> str:
        running = supervise(life, START_TIMEOUT=float(limit))
        running.wait_until(running.ended)
        assert running.status == 2
        assert running.nobody_left()
        found = re.search(r"worker \d on core \d+ did not start", running.events("raised")[0])
        return found[0] if found else running.log()

    ends_at_its_limit(refused, lambda _: "worker 1 on core 11 did not start")


def slow_again(supervise: Any, directory: Path) -> Callable[[WorkerSpec, int], int]:
    """Worker 0 gets ready the first time and never again; the others always."""

    def life(spec: WorkerSpec, report: int) -> int:
        first = directory / f"started{spec.index}"
        if spec.index == 0 and first.exists():
            return supervise.silent(spec, report)
        first.touch()
        return supervise.serve(spec, report)

    return life


def test_a_slow_restart_delays_no_other(supervise: Any, tmp_path: Path) -> None:
    """While one worker restarts slowly, another that dies is replaced."""
    running = supervise(slow_again(supervise, tmp_path))
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

    def started(limit: int) -> bool:
        directory = tmp_path / f"limit{limit}"
        directory.mkdir()
        running = supervise(slow_again(supervise, directory), START_TIMEOUT=float(limit))
        running.wait_until(lambda: running.events("ready") or running.ended())
        if not running.events("ready"):
            return False
        os.kill(running.workers(0)[0], signal.SIGKILL)
        running.wait_until(lambda: len(running.workers(0)) >= 3)
        assert running.events("worker did not start")
        assert len(running.workers(1)) == 1
        running.end()
        assert running.status == 0
        assert running.nobody_left()
        return True

    ends_at_its_limit(started, lambda _: True)


def test_a_worker_that_hangs_is_named_killed_and_replaced(supervise: Any, tmp_path: Path) -> None:
    """A running worker without heartbeats is killed; the others are not affected."""

    def killed(limit: int) -> tuple[bool, list[int]]:
        directory = tmp_path / f"limit{limit}"
        directory.mkdir()

        def life(spec: WorkerSpec, report: int) -> int:
            first = directory / f"started{spec.index}"
            os.write(report, READY)
            hangs = spec.index == 0 and not first.exists()
            first.touch()
            while not signal.sigtimedwait((signal.SIGTERM,), 0.01):
                if not hangs:
                    spec.heartbeat.beat()
            return 0

        running = supervise(life, HANG=float(limit), SILENT=limit / 2, POLL=0.05)
        running.await_events("worker ready", 3)
        lines = running.events("worker 0 on core 10: no sign of life for .* killed")
        starts = [len(running.workers(index)) for index in range(2)]
        running.end()
        assert running.status == 0
        return ["deciding=web" in line for line in lines] == [True], starts

    ends_at_its_limit(killed, lambda _: (True, [2, 1]))


def test_a_worker_that_hangs_while_it_takes_over(supervise: Any, tmp_path: Path) -> None:
    """One with heartbeats before its report can hang too; one without any yet is given time."""
    killed = "worker 0 on core 10: no sign of life for"
    places = iter(tmp_path / str(number) for number in range(len(LIMITS)))  # of each supervisor

    def started(limit: int) -> tuple[int, list[int]]:
        place = next(places)

        def life(spec: WorkerSpec, report: int) -> int:
            starts = len((place / f"worker{spec.index}").read_text().split())
            if spec.index == 0 and starts in (2, 3):
                with spec.heartbeat.watched():
                    while True:
                        signal.pause()
            # Without a sign for longer than one that hangs has: until two such were killed.
            while spec.index == 1 and starts == 2:
                if (place / "log").read_text().count(killed) >= 2:
                    break
                time.sleep(0.01)
            os.write(report, READY)
            while not signal.sigtimedwait((signal.SIGTERM,), 0.01):
                spec.heartbeat.beat()
            return 0

        running = supervise(life, HANG=float(limit), SILENT=limit / 2, POLL=0.05)
        running.await_events("ready")
        for index in range(2):
            os.kill(running.workers(index)[0], signal.SIGKILL)
        running.await_events("worker ready", 4)
        found = len(running.events(f"{killed} .* killed"))
        starts = [len(running.workers(index)) for index in range(2)]
        running.end()
        assert running.status == 0
        return found, starts

    ends_at_its_limit(started, lambda _: (2, [4, 2]))


def test_a_worker_that_hangs_at_the_end_is_not_waited_for(supervise: Any, tmp_path: Path) -> None:
    """Each is killed when its own time is over, whatever longer time another has: a proxy worker
    may drain for as long as `timeouts.drain` says.
    """

    def life(spec: WorkerSpec | ProxySpec, report: int) -> int:
        os.write(report, READY)
        if spec.role == "worker":
            while True:
                signal.pause()  # SIGTERM is blocked
        signal.sigwait((signal.SIGTERM,))
        worker = int((tmp_path / "0" / "worker0").read_text())
        wait_until(lambda: not runs(worker))
        return 0

    running = supervise(life, workers=1, proxied=True, EXIT_TIMEOUT=0.1)
    running.await_events("ready")
    running.end()
    assert running.events("worker exited with an error")
    assert not running.events("proxy worker exited with an error")
    assert running.nobody_left()


def test_a_supervisor_that_is_stopped_while_the_processes_end(
    supervise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it goes on, those that do not end are killed, and waited for."""
    asked: list[object] = []
    now, send = time.monotonic, manager.kill

    def kill(child: Child, number: signal.Signals) -> None:
        send(child, number)
        if number is signal.SIGTERM:
            asked.append(child)

    def monotonic() -> float:
        if len(asked) < 2:
            return now()
        asked.append(None)
        return now() + (3600.0 if len(asked) > 3 else 0.0)  # an hour after both were asked

    monkeypatch.setattr(manager, "kill", kill)
    monkeypatch.setattr(manager, "time", SimpleNamespace(monotonic=monotonic))
    running = supervise(supervise.ready_then_deaf)
    running.await_events("ready")
    running.end()
    assert running.status == 0
    assert running.nobody_left()
    assert len(running.events("worker exited with an error")) == 2


def test_a_failure_while_the_processes_end(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in from one that ends cannot keep the others from being ended and waited for."""
    works, stopping, failed = Loop.wait, set[signal.Signals](), tmp_path / "failed"

    def fails(loop: Loop, timeout: float) -> frozenset[signal.Signals]:
        if stopping:
            failed.touch()
            raise OSError(9, "Bad file descriptor")
        caught = works(loop, timeout)
        stopping.update(caught & {signal.SIGTERM})
        return caught

    def life(_: WorkerSpec, report: int) -> int:
        os.write(report, READY)
        signal.sigwait((signal.SIGTERM,))
        wait_until(failed.exists)
        return 0

    monkeypatch.setattr(Loop, "wait", fails)
    running = supervise(life, EXIT_TIMEOUT=TIMEOUT / 2)
    running.await_events("ready")
    running.end()
    assert running.status == 0
    assert running.nobody_left()
    assert running.events("internal error: what came in")


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
    running = supervise(supervise.serve, FIRST_WAIT=0.01, LONGEST_WAIT=0.02)
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
