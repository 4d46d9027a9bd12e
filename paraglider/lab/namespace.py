"""One network namespace, and the processes that run in it.

Lives here: ``Namespace``, and the removal of namespaces whose process has exited.
Rules: a namespace is named ``pg<pid>[.<n>]-<role>`` after the process that created it, so that
leftovers are found by name. Every program runs in its own session, so that Ctrl-C reaches only the
lab, which ends the others in order. Programs are argument lists. All processes in a namespace of
the lab belong to the lab and may be ended by pid.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab.interrupts import uninterrupted

NAME = re.compile(r"pg(?P<pid>\d+)(\.\d+)?-[a-z0-9]+")
NAMES: Final = Path("/run/netns")  # where `ip netns` has them
GRACE = 3.0  # seconds between SIGTERM and SIGKILL
#: seconds that a program may take: `ip` waits for a lock of all networks of the host
PATIENCE = 120.0
ROUTED = 120.0  # seconds in which an IPv6 address has its local route, on a busy machine too
_USABLE = re.compile(r"\baddr\w* (add|replace) \S*:|\bup\b")
_LOCAL = 0x80000000  # RTF_LOCAL of linux/ipv6_route.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
_CLONE_NEWNET, _MNT_DETACH = 0x40000000, 2  # linux/sched.h, linux/fs.h
_libc: Final = ctypes.CDLL(None, use_errno=True)

Output = int | IO[bytes] | None


def execute(
    command: Sequence[str],
    *,
    text: str | None = None,
    check: bool = True,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with ``text`` on its standard input and wait for its end.

    Raises ``OperatorError`` when the program is missing, ``PlatformError`` when it takes more than
    ``timeout`` seconds or, with ``check``, when it fails; the message has its output.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with uninterrupted():  # else it might run on, unknown to us
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        out, err = process.communicate(text, timeout)
        done = subprocess.CompletedProcess(list(command), process.returncode, out, err)
    except FileNotFoundError:
        raise OperatorError(
            f"the program {command[0]} is missing", "run scripts/bootstrap as root"
        ) from None
    except subprocess.TimeoutExpired:
        raise PlatformError(f"{' '.join(command)}: no end after {timeout:g} s") from None
    finally:
        if process is not None:
            _end(process)
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
            self.begin()
            self.await_routed()

    def begin(self) -> None:
        """Set the kernel's variables and the loopback of a new namespace."""
        self.sysctl(*self.SYSCTLS)
        with self.entered(), socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))

    def command(self, args: Sequence[str]) -> list[str]:
        """The argument list that runs ``args`` in here; it keeps its process id."""
        return ["ip", "netns", "exec", self.name, *args]

    def run(
        self,
        args: Sequence[str],
        *,
        text: str | None = None,
        check: bool = True,
        timeout: float = PATIENCE,
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
        with uninterrupted():
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
        """Give lines such as ``link set eth0 up`` to one ``ip -batch`` in here.

        IPv6 addresses that the lines make usable are usable when this returns.
        """
        self.batch(*lines)
        if any(_USABLE.search(line) for line in lines):
            self.await_routed()

    def batch(self, *lines: str) -> None:
        """As ``ip``, but does not wait for addresses."""
        execute(["ip", "-n", self.name, "-batch", "-"], text="".join(f"{x}\n" for x in lines))

    def await_routed(self) -> None:
        """Wait until every IPv6 address of a running interface has its local route. The kernel
        inserts these later, in a queue that waits for the lock of all networks of the host
        (addrconf_dad_work in net/ipv6/addrconf.c). Raises ``PlatformError`` if it does not.
        """
        deadline = time.monotonic() + ROUTED
        while (late := self._unrouted()) and time.monotonic() < deadline:
            time.sleep(0.002)
        if late:
            raise PlatformError(f"{self.name}: no local route to {', '.join(sorted(late))}")

    def _unrouted(self) -> set[str]:
        """The IPv6 addresses of running interfaces that have no local route yet, in hexadecimal."""
        tables = [f"/proc/thread-self/net/{name}" for name in ("if_inet6", "ipv6_route")]
        late, routed = {}, set()
        with self.entered():
            lines = [line for table in tables for line in Path(table).read_text().splitlines()]
        for line in lines:
            match line.split():
                case [address, _, _, _, _, interface]:
                    late[address] = interface
                case [address, "80", _, _, _, _, _, _, flags, _] if int(flags, 16) & _LOCAL:
                    routed.add(address)
        for address in routed:
            late.pop(address, None)
        if not late:
            return set()
        links = json.loads(execute(["ip", "-n", self.name, "-json", "link"]).stdout)
        running = {link["ifname"] for link in links if "LOWER_UP" in link["flags"]}
        return {address for address, interface in late.items() if interface in running}

    def sysctl(self, *settings: str, missing_ok: bool = False) -> None:
        """Set kernel variables in here, each as ``net.ipv4.ip_forward=1``; raises
        ``PlatformError`` that names the one that the kernel refuses, or does not have, unless that
        is ``missing_ok``.
        """
        with self.entered():
            for setting in settings:
                name, _, value = setting.partition("=")
                try:
                    Path("/proc/sys", *name.split(".")).write_text(value)
                except OSError as error:
                    if missing_ok and isinstance(error, FileNotFoundError):
                        continue
                    raise PlatformError(f"{self.name}: {setting}: {error.strerror}") from None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in here meanwhile, with the sockets and processes that it makes."""
        with Path("/proc/thread-self/ns/net").open("rb") as before:
            with (NAMES / self.name).open("rb") as here:
                _enter(here.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def pids(self) -> list[int]:
        """The processes that run in here now."""
        return _pids([self.name])

    def close(self) -> None:
        """End all processes in here and remove the namespace; may be called again."""
        close(self)

    def started(self) -> list[int]:
        """The processes that ``popen`` has started and that have not ended; one of them may not be
        in here yet.
        """
        return [process.pid for process in self._processes if process.poll() is None]

    def forget(self) -> None:
        """Wait for the ended processes."""
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


def create(given: Iterable[str]) -> list[Namespace]:
    """Create several namespaces at once; if one fails, none is left. The routes of their loopbacks
    may come later.
    """
    wanted = list(given)
    made = [Namespace(name, attach=True) for name in wanted]
    before = names()
    try:
        execute(["ip", "-batch", "-"], text="".join(f"netns add {name}\n" for name in wanted))
        for one in made:
            one.begin()
    except BaseException:
        close(*(one for one in made if one.name not in before))
        raise
    return made


def close(*given: Namespace) -> None:
    """End all processes in the namespaces ``given`` and remove these; may be called again."""
    remove(*(one.name for one in given), started=[pid for one in given for pid in one.started()])
    for one in given:
        one.forget()


def names() -> list[str]:
    """The names of all network namespaces of ``ip netns``."""
    return sorted(path.name for path in NAMES.iterdir()) if NAMES.exists() else []


def end_processes(*given: str, started: Collection[int] = ()) -> None:
    """End every process in the namespaces ``given``, and those ``started`` for these: SIGTERM, then
    SIGKILL after ``GRACE``.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = sorted({*_pids(given), *started})
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + GRACE
        while pids and time.monotonic() < deadline:
            time.sleep(0.005)
            # All of /proc only when these have ended: they may have left children.
            pids = _pids(given, pids) or _pids(given)
        if not pids:
            break


def remove(*given: str, started: Collection[int] = ()) -> None:
    """End every process in the namespaces ``given``, and those ``started`` for these, and remove
    the namespaces, as far as they exist.
    """
    left = [name for name in names() if name in given]
    if left:
        end_processes(*left, started=started)
    for name in left:
        path = NAMES / name
        _libc.umount2(os.fsencode(path), _MNT_DETACH)
        with contextlib.suppress(OSError):  # removed meanwhile
            path.unlink()


def remove_all(prefix: str) -> None:
    """Remove the namespaces of one topology: those called ``prefix-<role>``."""
    remove(*(x for x in names() if NAME.fullmatch(x) and x.startswith(f"{prefix}-")))


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


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a program, if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _pids(given: Collection[str], among: Sequence[int] | None = None) -> list[int]:
    """The processes in the namespaces ``given``, of all or ``among`` some."""
    wanted = {_identity(NAMES / name) for name in given} - {None}
    if among is None:
        among = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [pid for pid in among if _identity(Path(f"/proc/{pid}/ns/net")) in wanted]


def _identity(namespace: Path) -> tuple[int, int] | None:
    """Device and inode of a namespace's file; None if there is none (a process that has ended)."""
    try:
        found = namespace.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _enter(descriptor: int) -> None:
    """Have this thread in the namespace of a file."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
