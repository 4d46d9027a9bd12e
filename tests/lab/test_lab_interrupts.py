"""Ctrl-C at the worst moments of a lab: what is begun just then is known, and undone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from waiting import TIMEOUT

from paraglider.host import bpffs
from paraglider.lab import namespace
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.failover_scenario import FailoverLab
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.namespace import Namespace, execute
from paraglider.lab.scenario import Lab, LabOptions
from paraglider.lab.topology import new_prefix


def then_interrupt(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, with Ctrl-C before its caller has the result."""

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    return interrupted


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[Any]]:
    """The programs that are started; Ctrl-C is pressed while each starts."""
    made: list[subprocess.Popen[Any]] = []

    class Interrupted(subprocess.Popen[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return made


def test_a_program_that_starts_at_the_interrupt_has_ended(
    begun: list[subprocess.Popen[Any]],
) -> None:
    """It would make or remove networks while the lab cleans up."""
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        execute(["sleep", "60"])
    assert [process.poll() for process in begun] == [-signal.SIGKILL]


@pytest.mark.root
def test_a_daemon_that_starts_at_the_interrupt_is_known(request: pytest.FixtureRequest) -> None:
    """Its namespace ends it."""
    with Namespace(f"{new_prefix()}-test") as made:
        begun = request.getfixturevalue("begun")
        with Interrupts(), pytest.raises(KeyboardInterrupt):
            made.popen(["sleep", "60"])
        assert made.started() == [process.pid for process in begun]


@pytest.fixture
def unmounted() -> Iterator[None]:
    """No pins are mounted before, whatever other tests have left, nor after a test that fails."""

    def unmount() -> None:
        while bpffs.PINS.is_mount():
            subprocess.run(["umount", "--lazy", bpffs.PINS], check=True)

    unmount()
    yield
    unmount()


def console() -> Console:
    """An output that nobody reads."""
    return Console(file=io.StringIO())


@pytest.mark.root
@pytest.mark.parametrize("kind", [Lab, FailoverLab])
def test_a_mount_at_the_interrupt_is_undone(
    unmounted: None, monkeypatch: pytest.MonkeyPatch, kind: type[Lab]
) -> None:
    """The kernel has mounted it, and nobody knows yet."""
    lab = kind(LabOptions(backends=2), console())
    monkeypatch.setattr(bpffs, "mounted", then_interrupt(bpffs.mounted))
    with pytest.raises(KeyboardInterrupt):
        lab.run()
    assert not bpffs.PINS.is_mount()
    assert not [name for name in namespace.names() if name.startswith(f"{lab.prefix}-")]


@pytest.mark.root
def test_a_daemon_outside_of_its_namespace_is_ended_before_the_undo(
    unmounted: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ip netns exec` enters it some time later; what the daemon then changes nobody would undo."""
    lab = Lab(LabOptions(backends=1, connections=1), console())
    late = ["sleep", "30"]
    monkeypatch.setattr(LabBalancer, "daemon_command", late)
    command = Namespace.command

    def outside(self: Namespace, arguments: list[str]) -> list[str]:
        return arguments if arguments == late else command(self, arguments)

    started: list[subprocess.Popen[bytes]] = []
    popen = Namespace.popen

    def record(self: Namespace, arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = popen(self, arguments, **options)
        if arguments == late:
            started.append(process)
            os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(Namespace, "command", outside)
    monkeypatch.setattr(Namespace, "popen", record)
    with pytest.raises(KeyboardInterrupt):
        lab.run()
    (daemon,) = started
    assert daemon.wait(TIMEOUT) == -signal.SIGTERM
