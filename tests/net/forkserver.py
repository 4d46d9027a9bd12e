"""Runs Python programs of the tests in forked processes, which need not import anything again.

A daemon imports for more than a second of CPU; the tests of networks start hundreds, and as many
servers and clients. ``ForkServer`` is the tests' end; run as a program this file is the server: it
imports what the programs need, waits for requests and forks. A forked process has the argument
list, the namespace, the standard streams and the session of a program that `ip netns exec` starts.
That real programs start as well is held by ``tests/cli``, ``tests/lab`` and ``test_lab``.

Protocol: a request is one message on a socket pair: JSON, with four descriptors: standard input,
output and error, and a socket for the answers, which are the process id and, when the process has
ended, its wait status, each as one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from paraglider.errors import PlatformError
from paraglider.lab.namespace import Namespace

#: what programs import, and may find imported
PRELOADED = (
    "paraglider.cli.main",
    "paraglider.cli.run",
    "paraglider.daemon.supervisor",
    "paraglider.lab.servers",
    "paraglider.lab.client",
)
#: programs that are forked: modules, and files of this directory
MODULES = ("paraglider", "paraglider.lab.servers", "paraglider.lab.client")
FILES = ("peer.py", "holder.py")
STREAMS = ("stdin", "stdout", "stderr")
LARGEST = 65_536  # bytes of a request
MS_SLAVE, MS_REC, MNT_DETACH, CLONE_NEWNS, CLONE_NEWNET = 0x80000, 0x4000, 2, 0x20000, 0x40000000


class ForkServer:
    """The server's process, and what starts programs by it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours

    def popen(
        self, namespace: str, command: Sequence[str], streams: Sequence[int | IO[bytes] | None]
    ) -> Forked:
        """Start ``command``, which ``forkable`` has accepted, in ``namespace``.

        ``streams`` are standard input, output and error as ``subprocess.Popen`` takes them.
        """
        given: list[int] = []
        piped: list[IO[bytes] | None] = []
        opened: list[int] = []
        for number, stream in enumerate(streams):
            kept: IO[bytes] | None = None
            if stream == subprocess.PIPE:
                reading, writing = os.pipe()
                theirs, ours = (reading, writing) if number == 0 else (writing, reading)
                kept = os.fdopen(ours, "wb" if number == 0 else "rb", 0 if number == 0 else -1)
                opened.append(theirs)
            elif stream == subprocess.DEVNULL:
                theirs = os.open(os.devnull, os.O_RDWR)
                opened.append(theirs)
            elif stream == subprocess.STDOUT:
                theirs = given[1]
            elif stream is None:
                theirs = number
            else:
                theirs = stream if isinstance(stream, int) else stream.fileno()
            given.append(theirs)
            piped.append(kept)
        ours_end, theirs_end = socket.socketpair()
        request = json.dumps(
            {
                "namespace": namespace,
                "command": list(command[1:]),
                "directory": str(Path.cwd()),
                "environment": dict(os.environ),
            }
        )
        with theirs_end:
            socket.send_fds(self._socket, [request.encode()], [*given, theirs_end.fileno()])
        for descriptor in opened:
            os.close(descriptor)
        return Forked(command, ours_end, piped)

    def close(self) -> None:
        """End the server; what it has started goes on."""
        self._socket.close()
        self._process.wait()


class Forked(subprocess.Popen[bytes]):
    """A process that the server has forked, for those who would have a ``subprocess.Popen``."""

    def __init__(
        self, command: Sequence[str], answers: socket.socket, streams: Sequence[IO[bytes] | None]
    ) -> None:
        self.args = list(command)
        self.stdin, self.stdout, self.stderr = streams
        self.returncode = None  # type: ignore[assignment]
        self._answers = answers
        self._read = b""
        self._child_created = False  # nobody else's to wait for
        self._waitpid_lock = threading.Lock()
        self._communication_started = False
        self._input = None
        self.text_mode = False
        self.pid = int(self._line(None) or 0)

    def _line(self, timeout: float | None) -> bytes | None:
        """The next line of the server; None when there is none within ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._read:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            self._answers.settimeout(left)
            try:
                got = self._answers.recv(64)
            except (TimeoutError, BlockingIOError):
                return None
            if not got:
                raise RuntimeError("the fork server is gone")
            self._read += got
        line, _, self._read = self._read.partition(b"\n")
        return line

    def poll(self) -> int | None:
        """See ``subprocess.Popen``."""
        return self._end(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """See ``subprocess.Popen``."""
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """See ``subprocess.Popen``."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _end(self, timeout: float | None) -> int | None:
        with self._waitpid_lock:
            if self.returncode is None:
                line = self._line(timeout)
                if line is not None:
                    self.returncode = os.waitstatus_to_exitcode(int(line))
                    self._answers.close()
            return self.returncode

    def __del__(self, *_: Any) -> None:
        """Nothing is left of it but a socket."""
        self._answers.close()


class ForkingNamespace:
    """What ``Namespace`` does of its own, but for programs that the server can fork.

    ``patch`` has every namespace of the tests start them so.
    """

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._popen, self._run = Namespace.popen, Namespace.run

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace ``Namespace.popen`` and ``Namespace.run``."""

        def popen(namespace: Namespace, args: Sequence[str], **options: Any) -> Any:
            if options.get("env") is not None or not forkable(args):
                return self._popen(namespace, args, **options)
            streams = [options.get(name, subprocess.DEVNULL) for name in STREAMS]
            process = self.server.popen(namespace.name, args, streams)
            namespace._processes.append(process)
            return process

        def run(namespace: Namespace, args: Sequence[str], **options: Any) -> Any:
            if not forkable(args):
                return self._run(namespace, args, **options)
            return self._to_end(namespace, args, **options)

        monkeypatch.setattr(Namespace, "popen", popen)
        monkeypatch.setattr(Namespace, "run", run)

    @property
    def server(self) -> ForkServer:
        """The server, which is started when it is first needed."""
        if self._server is None:
            self._server = ForkServer()
        return self._server

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            self._server.close()

    def _to_end(
        self,
        namespace: Namespace,
        args: Sequence[str],
        *,
        text: str | None = None,
        check: bool = True,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """As ``namespace.execute``."""
        first = subprocess.DEVNULL if text is None else subprocess.PIPE
        streams = (first, subprocess.PIPE, subprocess.PIPE)
        process = self.server.popen(namespace.name, args, streams)
        command = " ".join(args)
        try:
            given = None if text is None else text.encode()
            ends = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise PlatformError(f"{command}: no end after {timeout:g} s") from None
        out, err = (end.decode(errors="replace") for end in ends)
        if check and process.returncode != 0:
            words = (err or out).strip()
            raise PlatformError(f"{command}: exit {process.returncode}: {words[-2000:]}")
        return subprocess.CompletedProcess(list(args), process.returncode, out, err)


def forkable(command: Sequence[str]) -> bool:
    """Whether ``command`` is a program that the server has imported what it needs for."""
    if len(command) < 2 or command[0] != sys.executable:
        return False
    if command[1] == "-m":
        return len(command) > 2 and command[2] in MODULES
    file = Path(command[1])
    return file.parent == Path(__file__).parent and file.name in FILES


def serve(control: socket.socket) -> None:
    """Fork for every request on ``control``, and tell of every end, until it is closed."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    running: dict[int, socket.socket] = {}
    waking, woken = os.pipe()
    for end in (waking, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control, waking], [], [])
        if waking in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(waking, 4096)
            _reap(running)
        if control not in ready:
            continue
        text, descriptors, _, _ = socket.recv_fds(control, LARGEST, 4)
        if not text:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _become(json.loads(text), descriptors)
        running[pid] = socket.socket(fileno=descriptors[3])
        running[pid].send(b"%d\n" % pid)
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _reap(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as answers, contextlib.suppress(OSError):
            answers.send(b"%d\n" % status)


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """In the forked process: be the program, and end."""
    code = 1
    try:
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        os.closerange(3, 1 << 16)
        os.setsid()
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        _enter(request["namespace"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it lives as long as the process
        for name, number in (("stdout", 1), ("stderr", 2)):
            lines = 1 if number == 2 or os.isatty(number) else -1
            setattr(sys, name, open(number, "w", lines, closefd=False))  # noqa: SIM115
        code = _run(request["command"])
    except BaseException:  # noqa: BLE001 - whatever it is, it ends this process
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(command: list[str]) -> int:
    """Run ``-m MODULE …`` or ``FILE …`` as the interpreter would; its exit code."""
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            sys.modules.pop(command[1], None)  # it is run as __main__, with all that it imports
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            sys.path[0] = str(Path(command[0]).parent)
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
    return 0


def _enter(namespace: str) -> None:
    """As `ip netns exec` does: the network, /sys as it shows there, files of /etc/netns."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{name}: {os.strerror(error)}")

    with Path("/run/netns", namespace).open("rb") as file:
        call("setns", file.fileno(), CLONE_NEWNET)
    call("unshare", CLONE_NEWNS)
    call("mount", b"", b"/", b"none", ctypes.c_ulong(MS_SLAVE | MS_REC), None)
    libc.umount2(b"/sys", MNT_DETACH)
    call("mount", namespace.encode(), b"/sys", b"sysfs", ctypes.c_ulong(0), None)
    for source in Path("/etc/netns", namespace).glob("*"):
        target = Path("/etc", source.name)
        call("mount", bytes(source), bytes(target), b"none", ctypes.c_ulong(4096), None)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
