"""A forked process: its state, no resources of others, and its report."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.daemon import log
from paraglider.daemon.ipc import IpcEndpoint
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.forking import error_of, fork
from paraglider.daemon.processes.spec import READY, Spec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.errors import OperatorError, PlatformError


def test_a_worker_that_fails_without_a_word(supervise: Any) -> None:
    """A fault of ours is logged by the worker, and the supervisor ends with exit code 2."""

    def life(spec: WorkerSpec, report: int) -> int:
        if spec.index == 0:
            raise RuntimeError("a fault")
        return supervise.serve(spec, report)

    running = supervise(life)
    running.wait_until(running.ended)
    assert running.status == 2
    assert "RuntimeError: a fault" in running.events("worker failed")[0]
    assert "worker 0 on core 10 did not start" in running.events("raised")[0]
    assert running.nobody_left()


def sockets() -> int:
    """How many sockets and the like this process holds."""
    kinds = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            kinds.append(str(descriptor.readlink()))
    return sum(kind.startswith(("socket:", "anon_inode:")) for kind in kinds)


def test_a_worker_inherits_no_other_descriptors(supervise: Any) -> None:
    """Of sockets it has those of its grandparent, and its endpoint."""

    def life(spec: WorkerSpec, report: int) -> int:
        log.logger().info("holds", sockets=sockets())
        return supervise.serve(spec, report)

    gc.collect()  # as the supervisor does: sockets of earlier tests go with their objects
    before = sockets()
    running = supervise(life, workers=3)
    running.await_events("ready")
    assert [f"sockets={before + 1}" in line for line in running.events("holds")] == [True] * 3
    running.end()


class _Plain(Spec):
    role: ClassVar[str] = "worker"


@settings(max_examples=50)
@given(st.binary(max_size=50))
def test_any_report_is_ready_or_an_error(report: bytes) -> None:
    """Any content gives READY or an error; the first byte is the kind of error."""
    error = error_of(_Plain(0), report)
    if report == READY:
        assert error is None
    else:
        assert isinstance(error, OperatorError if report[:1] == b"1" else PlatformError)
        assert str(error)


def test_the_text_of_a_report() -> None:
    """Its words, with the name of the process ahead."""
    assert str(error_of(_Plain(0), b"1no queue; add one")) == "worker: no queue; add one"
    assert "\ufffd" in str(error_of(_Plain(0), b"2\xff"))
    assert "worker did not start" in str(error_of(_Plain(0), b""))


def descriptors() -> set[str]:
    """The open descriptors of this process, by number."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


@pytest.mark.parametrize("call", ["fork", "pipe"])
def test_nothing_is_left_of_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """No descriptor, no blocked signal, no child."""

    def fails() -> Any:
        raise BlockingIOError(11, "none left")

    child = Child(_Plain(0))
    gc.collect()
    before, mask = descriptors(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(BlockingIOError):
        fork(child, [child], lambda *_: 0, lambda: None, None)
    monkeypatch.undo()
    assert descriptors() <= before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert (child.pid, child.endpoint) == (0, None)


def forked(run: Any, others: Sequence[Child] = (), leave: Any = lambda: None) -> tuple[bytes, int]:
    """The report and the exit code of a process that does what ``run`` does."""
    child = Child(_Plain(0))
    reading, ours = fork(child, [child, *others], run, leave, log.logger())
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as pipe:
        report = pipe.read()
    ours.close()
    return report, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def test_its_life() -> None:
    """It leaves the parent's loop, runs with signals blocked, and exits with its code."""
    left: list[int] = []

    def run(spec: Spec, report: int, parent: int) -> int:
        said = [len(left), spec.endpoint is not None, parent == os.getppid()]
        said.append(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.write(report, repr(said).encode())
        return 7

    assert forked(run, leave=lambda: left.append(1)) == (b"[1, True, True, True]", 7)
    assert left == []
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_it_raises_never_gets_back() -> None:
    """Any exception, also SystemExit, ends it with the exit code of a platform error."""

    def run(_spec: Spec, _report: int, _parent: int) -> int:
        raise SystemExit(0)

    assert forked(run) == (b"", PlatformError.exit_code)


def test_what_belongs_to_the_others_is_closed() -> None:
    """Endpoints and report pipes of the others, in the new process only."""
    ours, theirs = IpcEndpoint.pair(FROM_ROLE["worker"], TO_ROLE["worker"])
    reading, writing = os.pipe()
    other = Child(_Plain(1), endpoint=ours, report=reading)
    numbers = [ours.fileno(), reading]

    def run(_spec: Spec, report: int, _parent: int) -> int:
        held = {int(name) for name in descriptors()}
        os.write(report, repr([number in held for number in numbers]).encode())
        return 0

    assert forked(run, [other]) == (b"[False, False]", 0)
    assert {str(number) for number in numbers} <= descriptors()
    for end in (ours, theirs):
        end.close()
    os.close(reading)
    os.close(writing)
