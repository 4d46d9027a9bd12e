"""One network namespace, and the processes that run in it.

Lives here: ``Namespace``, and the removal of namespaces whose process has exited.
Rules: a namespace is named ``pg<pid>[.<n>]-<role>`` after the process that created it, so that
leftovers are found by name. Every program runs in its own session, so that Ctrl-C reaches only the
lab, which ends the others in order. Programs are argument lists. All processes in a namespace of
the lab belong to the lab and may be ended by pid.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from paraglider.errors import OperatorError, PlatformError

NAME = re.compile(r"pg(?P<pid>\d+)(\.\d+)?-[a-z0-9]+")
GRACE = 3.0  # seconds between SIGTERM and SIGKILL

Output = int | IO[bytes] | None


def execute(
    command: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with ``text`` on its standard input and wait for its end.

    Raises ``OperatorError`` when the program is missing, ``PlatformError`` when it takes more than
    ``timeout`` seconds or, with ``check``, when it fails; the message has its output.
    """
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise OperatorError(
            f"the program {command[0]} is missing", "run scripts/bootstrap as root"
        ) from None
    except subprocess.TimeoutExpired:
        raise PlatformError(f"{' '.join(command)}: no end after {timeout:g} s") from None
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise PlatformError(f"{' '.join(command)}: exit {done.returncode}: {words[-2000:]}")
    return done


class Namespace:
    """A network namespace called ``name``; the constructor creates it, ``close`` removes it.

    With ``attach`` the namespace must exist and is not changed. IPv6 addresses are usable at once
    (no duplicate address detection), loopback is up, ping needs no raw socket.
    """

    SYSCTLS = (
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
        "net.ipv6.conf.all.router_solicitations=0",
        "net.ipv6.conf.default.router_solicitations=0",
        "net.ipv4.ping_group_range=0 2147483647",
    )

    def __init__(self, name: str, *, attach: bool = False) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []
        if not attach:
            execute(["ip", "netns", "add", name])
            self.sysctl(*self.SYSCTLS)
            self.ip("link set lo up")

    def command(self, args: Sequence[str]) -> list[str]:
        """The argument list that runs ``args`` in here; it keeps its process id."""
        return ["ip", "netns", "exec", self.name, *args]

    def run(
        self,
        args: Sequence[str],
        *,
        text: str | None = None,
        check: bool = True,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in here to its end; see ``execute``."""
        return execute(self.command(args), text=text, check=check, timeout=timeout)

    def popen(
        self,
        args: Sequence[str],
        *,
        stdin: Output = subprocess.DEVNULL,
        stdout: Output = subprocess.DEVNULL,
        stderr: Output = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in here; ``close`` ends it."""
        process = subprocess.Popen(
            self.command(args),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def ip(self, *lines: str) -> None:
        """Give lines such as ``link set eth0 up`` to one ``ip -batch`` in here."""
        execute(["ip", "-n", self.name, "-batch", "-"], text="".join(f"{x}\n" for x in lines))

    def sysctl(self, *settings: str) -> None:
        """Set kernel variables in here, each as ``net.ipv4.ip_forward=1``."""
        self.run(["sysctl", "-q", "-w", *settings])

    def pids(self) -> list[int]:
        """The processes that run in here now."""
        return _pids(self.name)

    def close(self) -> None:
        """End all processes in here and remove the namespace; may be called again."""
        remove(self.name)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def names() -> list[str]:
    """The names of all network namespaces of ``ip netns``."""
    listing = execute(["ip", "netns", "list"]).stdout
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def end_processes(name: str) -> None:
    """End every process in the namespace ``name``: SIGTERM, then SIGKILL after ``GRACE``."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = _pids(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + GRACE
        while pids and time.monotonic() < deadline:
            time.sleep(0.01)
            pids = _pids(name)
        if not pids:
            break


def remove(name: str) -> None:
    """End every process in the namespace ``name`` and remove it, if it exists."""
    if name in names():
        end_processes(name)
        execute(["ip", "netns", "delete", name], check=False)


def remove_all(prefix: str) -> None:
    """Remove the namespaces of one topology: those called ``prefix-<role>``."""
    for name in names():
        if NAME.fullmatch(name) and name.startswith(f"{prefix}-"):
            remove(name)


def stale(keep: Sequence[str] = ()) -> list[str]:
    """Remove the namespaces whose process has exited; returns their names.

    Namespaces whose prefix is in ``keep`` belong to kept labs and stay.
    """
    removed = []
    for name in names():
        match = NAME.fullmatch(name)
        if match is None or name.rpartition("-")[0] in keep or alive(int(match["pid"])):
            continue
        remove(name)
        removed.append(name)
    return removed


def alive(pid: int) -> bool:
    """True when a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _pids(name: str) -> list[int]:
    return [int(x) for x in execute(["ip", "netns", "pids", name], check=False).stdout.split()]
