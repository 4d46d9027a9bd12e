"""One network namespace, and the processes that run in it.

Lives here: ``Namespace`` and the cleaning up of namespaces whose maker is gone.
Rules: a namespace of the lab is named ``pg<pid>[.<n>]-<role>`` after the process that made it, so
that leftovers are recognised by name alone. Every program runs in a session of its own, so that
Ctrl-C reaches the lab first and the lab ends the rest in order. Programs are argument lists;
what runs in a namespace of ours was started from here, so ending it by pid is ours to do.
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
GRACE = 3.0  # seconds between asking a process to end and ending it

Output = int | IO[bytes] | None


def execute(
    command: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end with ``text`` on its standard input.

    Raises ``OperatorError`` when the program is missing, ``PlatformError`` when it takes more than
    ``timeout`` seconds or, with ``check``, when it fails; the message has its last words.
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
    """A network namespace called ``name``; made when constructed, removed by ``close``.

    With ``attach`` it was made before, by somebody else, and is taken as it is.
    IPv6 addresses are usable at once (no duplicate address detection), loopback is up, ping needs
    no raw socket.
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
        """Start a program in here; ``close`` ends it if nobody does before."""
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
        """End what runs in here and remove the namespace; again and again does no harm."""
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
    """The names of all network namespaces that ``ip netns`` knows."""
    listing = execute(["ip", "netns", "list"]).stdout
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def end_processes(name: str) -> None:
    """End every process in the namespace ``name``: SIGTERM, then, after a grace, SIGKILL."""
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
    """End every process in the namespace ``name``, then remove it, if it is there."""
    if name in names():
        end_processes(name)
        execute(["ip", "netns", "delete", name], check=False)


def remove_all(prefix: str) -> None:
    """Remove the namespaces of one topology: those called ``prefix-<role>``."""
    for name in names():
        if NAME.fullmatch(name) and name.startswith(f"{prefix}-"):
            remove(name)


def stale(keep: Sequence[str] = ()) -> list[str]:
    """Remove the namespaces whose maker is no longer alive; returns their names.

    Those of a topology whose prefix is in ``keep`` stay: they were left up on purpose.
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
