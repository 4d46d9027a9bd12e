"""Runs Python programs of the tests in forked processes, which inherit all imports.

The imports of a daemon take more than a second of CPU; the network tests start hundreds of daemons,
servers and clients. ``ForkServer`` is the tests' end; ``forked.py`` is the server: it imports the
modules of the programs, waits for requests and forks. There are two, because the cost of a fork
grows with what is imported: one for the programs of Paraglider, one for servers and clients, which
use the standard library alone. ``tests/cli``, ``tests/lab`` and ``test_lab`` test that real
programs start.

Protocol: a request is one message on a socket pair: JSON, with four descriptors: standard input,
output and error, and a socket for the answers, which are the process id and, after its exit, its
wait status, each as one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab.namespace import PATIENCE, Namespace

HERE = Path(__file__).parent
#: the programs that are forked: modules, and files of this directory; "-c": text of a program
FULL = ("paraglider", "checking.py", "-c")
LIGHT = (
    "paraglider.lab.servers",
    "paraglider.lab.client",
    "peer.py",
    "holder.py",
    "links.py",
    "forging.py",
)
#: what programs import, and may find imported
PRELOADED = {
    FULL: [
        "paraglider.cli.main",
        "paraglider.cli.run",
        "paraglider.daemon.supervisor",
        str(HERE / "checking.py"),
    ],
    LIGHT: [str(HERE / name) if name.endswith(".py") else name for name in LIGHT],
}
STREAMS = ("stdin", "stdout", "stderr")


class ForkServer:
    """The server's process, and the function that starts programs in it."""

    def __init__(self, preloaded: Sequence[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "forked.py"), str(theirs.fileno()), *preloaded],
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
        """End the server; forked programs continue."""
        self._socket.close()
        self._process.wait()


class Forked(subprocess.Popen[bytes]):
    """A forked process with the interface of ``subprocess.Popen``."""

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
            with contextlib.suppress(ProcessLookupError):  # its end is about to be told
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
        """Close its socket."""
        self._answers.close()


class ForkingNamespace:
    """The methods of ``Namespace`` for programs that a server can fork. ``patch`` makes every
    namespace of the tests use them.
    """

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], ForkServer] = {}
        self._popen, self._run = Namespace.popen, Namespace.run

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace ``Namespace.popen`` and ``Namespace.run``."""

        def popen(namespace: Namespace, args: Sequence[str], **options: Any) -> Any:
            programs = forking(args)
            if options.get("env") is not None or programs is None:
                return self._popen(namespace, args, **options)
            streams = [options.get(name, subprocess.DEVNULL) for name in STREAMS]
            process = self.server(programs).popen(namespace.name, args, streams)
            namespace._processes.append(process)
            return process

        def run(namespace: Namespace, args: Sequence[str], **options: Any) -> Any:
            programs = forking(args)
            if programs is None:
                return self._run(namespace, args, **options)
            return self._to_end(self.server(programs), namespace, args, **options)

        monkeypatch.setattr(Namespace, "popen", popen)
        monkeypatch.setattr(Namespace, "run", run)

    def server(self, programs: tuple[str, ...]) -> ForkServer:
        """The server of ``programs``, which is started when it is first needed."""
        if programs not in self._servers:
            self._servers[programs] = ForkServer(PRELOADED[programs])
        return self._servers[programs]

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.close()

    @staticmethod
    def _to_end(
        server: ForkServer,
        namespace: Namespace,
        args: Sequence[str],
        *,
        text: str | None = None,
        check: bool = True,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """As ``namespace.execute``."""
        first = subprocess.DEVNULL if text is None else subprocess.PIPE
        streams = (first, subprocess.PIPE, subprocess.PIPE)
        process = server.popen(namespace.name, args, streams)
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


def forking(command: Sequence[str]) -> tuple[str, ...] | None:
    """Which programs' server has imported the modules of ``command``; None if none has."""
    if len(command) < 2 or command[0] != sys.executable:
        return None
    name = command[1]
    if name == "-m":
        name = command[2] if len(command) > 2 else ""
    elif name != "-c" and Path(name).parent == HERE:
        name = Path(name).name
    return next((programs for programs in PRELOADED if name in programs), None)
