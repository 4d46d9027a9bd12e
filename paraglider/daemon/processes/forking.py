"""Forks the supervisor's processes, and reads their reports.

Lives here: ``fork``, ``error_of``.
Rules: a process inherits no endpoint, pipe or signal handler of another. Its report is READY, or an
exit code and the error.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NoReturn

from paraglider.daemon.ipc import RECEIVED, IpcEndpoint
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import READY, Run, Spec
from paraglider.errors import OperatorError, ParagliderError, PlatformError


def fork(
    child: Child,
    everybody: Iterable[Child],
    run: Run,
    leave: Callable[[], object],
    sink: Any,
) -> tuple[int, IpcEndpoint]:
    """Fork ``child`` to run ``run``; returns the report pipe and the supervisor's end of its
    endpoint.

    The new process first calls ``leave`` and closes the descriptors of the others in ``everybody``.
    Raises OSError or MemoryError if the kernel refuses another process; then nothing is left open.
    """
    spec = child.spec
    ours, theirs = IpcEndpoint.pair(spec.from_process, spec.to_process, longest=RECEIVED)
    reading = writing = -1
    # Blocked until the child has left the loop, so that it does not handle a signal for the parent.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        spec.heartbeat.begin(child.started)
        parent = os.getpid()
        child.pid = os.fork()
        if child.pid == 0:
            os.close(reading)
            ours.close()

            def begin() -> None:
                leave()
                _close_others(child, everybody)

            _run_child(replace(spec, endpoint=theirs), run, writing, parent, begin, sink)
    except (OSError, MemoryError):
        for end in (reading, writing):
            if end >= 0:
                os.close(end)
        ours.close()
        theirs.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.close(writing)
    theirs.close()
    return reading, ours


def _run_child(
    spec: Spec,
    run: Run,
    writing: int,
    parent: int,
    begin: Callable[[], object],
    sink: Any,
) -> NoReturn:
    """In the forked process: run ``spec``, and exit."""
    status = PlatformError.exit_code
    try:
        begin()
        status = run(spec, writing, parent)
    except BaseException:  # noqa: BLE001 - whatever it is, it ends this process and no other
        sink.exception(f"{spec.role} failed", **spec.labels())
    finally:
        os._exit(status)  # never return into the parent's code


def _close_others(mine: Child, everybody: Iterable[Child]) -> None:
    """In a forked process: close what belongs to the others."""
    for other in everybody:
        if other is not mine:
            other.spec.release()
            other.spec.heartbeat.close()
            if other.spec.counters is not None:
                other.spec.counters.close()
        if other.endpoint is not None:
            other.endpoint.close()
        if other.report >= 0:
            os.close(other.report)


def error_of(spec: Spec, report: bytes) -> ParagliderError | None:
    """The error in a report; None if the process is ready."""
    if report == READY:
        return None
    if report[:1].isdigit():
        kind = OperatorError if report[:1] == b"1" else PlatformError
        return kind(f"{spec.name}: {report[1:].decode(errors='replace')}")
    return PlatformError(f"{spec.name} did not start", "the log above says why")
