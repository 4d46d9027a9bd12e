"""One process as the supervisor sees it: readiness, pending output, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from paraglider.daemon.ipc import IpcEndpoint
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, LoadRules
from paraglider.daemon.processes import child as module
from paraglider.daemon.processes.child import DEATHS, DEATHS_WITHIN, Child, kill
from paraglider.daemon.processes.spec import Spec


@pytest.mark.parametrize(
    ("pid", "report", "hung", "up"),
    [
        (0, -1, False, False),
        (7, 3, False, False),
        (7, 0, False, False),
        (7, -1, True, False),
        (7, -1, False, True),
    ],
)
def test_which_processes_are_ready(pid: int, report: int, hung: bool, up: bool) -> None:
    """A process is ready if it runs, has reported, which closes the pipe (0 is a valid descriptor),
    and does not hang.
    """
    assert Child(Spec(0), pid=pid, report=report, hung=hung).up is up


def test_what_has_yet_to_be_read() -> None:
    """Nothing without an endpoint; otherwise the output that did not fit into the socket."""
    child = Child(Spec(0))
    assert not child.pending
    ours, theirs = IpcEndpoint.pair(FROM_ROLE["host helper"], TO_ROLE["host helper"])
    child.endpoint = ours
    assert not child.pending
    for _ in range(100):
        ours.send(LoadRules(text="x" * 100_000))
        if child.pending:
            break
    assert child.pending
    while child.pending:
        theirs.receive()
        ours.flush()
    ours.close()
    theirs.close()


def test_children_share_nothing() -> None:
    """Each has its own inbox, and dies its own deaths."""
    assert Child(Spec(0)).inbox is not Child(Spec(1)).inbox
    assert Child(Spec(0)).deaths is not Child(Spec(1)).deaths


def test_for_how_long_a_process_does_not_serve() -> None:
    """Since its exit, or since its first start; a running one since its last heartbeat."""
    child = Child(Spec(0), started=10.0)
    assert child.absence(12.0) == 2.0
    child.exited, child.started = 20.0, 21.0
    assert child.absence(22.0) == 2.0
    child.pid, child.silence = 7, 0.5
    assert child.absence(99.0) == 0.5
    child.hung, child.silence = True, 4.0
    assert child.absence(99.0) == 4.0


def test_only_the_last_deaths_count() -> None:
    """So many within so long a time, however many there were before."""
    child = Child(Spec(0))
    for number in range(10 * DEATHS):
        child.deaths.append(number * DEATHS_WITHIN)
        assert not child.keeps_dying(number * DEATHS_WITHIN)
    for _ in range(DEATHS):
        child.deaths.append(9999.0)
    assert child.keeps_dying(9999.0 + DEATHS_WITHIN - 1)
    assert not child.keeps_dying(9999.0 + DEATHS_WITHIN)


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that are sent, and to whom; 404 is gone."""
    sent: list[tuple[int, int]] = []

    def send(pid: int, number: int) -> None:
        if pid == 404:
            raise ProcessLookupError
        sent.append((pid, number))

    monkeypatch.setattr(module.os, "kill", send)
    return sent


def test_signals(signalled: list[tuple[int, int]]) -> None:
    """A running process gets the signal; pid 0 would be the process group, so nothing is sent."""
    for pid in (0, 404, 7):
        kill(Child(Spec(0), pid=pid), signal.SIGTERM)
    assert signalled == [(7, signal.SIGTERM)]


def test_one_that_has_ended_and_is_not_reaped() -> None:
    """Its pid is not reused yet: the signal is no error, and reaches no other process."""
    child = Child(Spec(0), pid=_forked(lambda: 3))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 3


def _forked(run: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(run())
    return pid
