"""The server of ``forkserver``: imports modules, waits for requests and forks; run as a program.

::

    forked.py DESCRIPTOR NAME…    a socket, see ``forkserver``; modules and files (.py) to import

A forked process has the argument list, the namespace, the standard streams and the session of a
program that `ip netns exec` starts.

Rules: standard library only, since every forked process copies what is imported here.
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
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 65_536  # bytes of a request
MS_SLAVE, MS_REC, MNT_DETACH, CLONE_NEWNS, CLONE_NEWNET = 0x80000, 0x4000, 2, 0x20000, 0x40000000

#: the code of the files that have been run, by their path
_codes: dict[str, types.CodeType] = {}


def serve(control: socket.socket, modules: Sequence[str], files: Sequence[str]) -> None:
    """Import ``modules`` and what ``files`` import; fork for every request on ``control``, and
    report every exit, until it is closed.
    """
    for name in modules:
        importlib.import_module(name)
    for name in files:
        _codes[name] = compile(Path(name).read_bytes(), name, "exec")
        exec(_codes[name], {"__name__": "preloaded"})
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
        with contextlib.suppress(OSError):  # a test that ended at its time limit
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
    """In the forked process: run the program, and exit."""
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
    """Run ``-m MODULE …``, ``-c CODE …`` or ``FILE …`` as the interpreter would; its exit code."""
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            sys.modules.pop(command[1], None)  # it is run as __main__, with all that it imports
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
            return 0
        sys.argv = command
        if command[0] == "-c":
            sys.path[0] = ""
            code = compile(command.pop(1), "<string>", "exec")
        else:
            sys.path[0] = str(Path(command[0]).parent)
            code = _codes[command[0]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(code, main.__dict__)
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
    return 0


def _enter(namespace: str) -> None:
    """As `ip netns exec`: the network namespace, its /sys, files of /etc/netns."""
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
    named = sys.argv[2:]
    serve(
        socket.socket(fileno=int(sys.argv[1])),
        [name for name in named if not name.endswith(".py")],
        [name for name in named if name.endswith(".py")],
    )
