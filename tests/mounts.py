"""The mounts of a test process: its own network namespaces and its own /run/paraglider.

Several runs of the tests share a host, and a run is several processes. Each has a mount namespace,
in which /run/netns and /run/paraglider are empty file systems of its own: the names of network
namespaces, pinned BPF objects, states, locks and notes of labs are those of its own tests. To enter
a network namespace of a test from a shell: ``nsenter --mount --target PID``, the process of pytest,
then `ip netns exec`. With the last process the kernel removes all of it.

A second process, ``mounts.py PID DESCRIPTOR``, outlives that of the tests: it kills what this has
left, also when it was killed, so that no daemon, server or network of a test stays on the host.

Importable by its name, as ``waiting`` is. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

PLACES: Final = ("/run/netns", "/run/paraglider")

_CLONE_NEWNS: Final = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_MNT_DETACH: Final = 2
_SOURCE: Final = "paraglider-tests-"


def isolate() -> None:
    """Move this process, and all that it starts later, to a mount namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    call("unshare", _CLONE_NEWNS)
    call("mount", b"", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    source = f"{_SOURCE}{os.getpid()}".encode()
    for place in PLACES:
        Path(place).mkdir(mode=0o755, parents=True, exist_ok=True)
        for path in (place, *map(str, Path(place).iterdir())):
            # The copies of the host's mounts would keep its namespaces and pins.
            while libc.umount2(path.encode(), _MNT_DETACH) == 0:
                pass
        call("mount", source, place.encode(), b"tmpfs", ctypes.c_ulong(0), b"mode=0755")


@functools.cache
def watch() -> subprocess.Popen[bytes]:
    """Start the process that kills what this one leaves; to be called before ``isolate``, since it
    must not be one of those.
    """
    descriptor = os.pidfd_open(os.getpid())
    try:
        return subprocess.Popen(
            [sys.executable, "-S", __file__, str(os.getpid()), str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # who reads our output waits for nobody else
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def end_left(owner: int) -> None:
    """Kill the processes that the test process ``owner``, which has ended, has left."""
    while left := [process for process, of in _owned() if of == owner]:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def end_orphans() -> None:
    """As ``end_left``, of all runs; for those whose second process was killed too."""
    for owner in {of for _, of in _owned()}:
        if not Path(f"/proc/{owner}").exists():
            end_left(owner)


def _owned() -> list[tuple[int, int]]:
    """The processes in the mounts of a test process, each with that process.

    What is in the mount namespace of one of them is too, though it sees no mounts (chroot).
    """
    spaces: dict[int, str] = {}
    owners: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            space = spaces[int(process.name)] = str((process / "ns/mnt").readlink())
            found = re.search(rf" tmpfs {_SOURCE}(\d+) ", (process / "mountinfo").read_text())
            if found:
                owners[space] = int(found[1])
    return [(process, owners[space]) for process, space in spaces.items() if space in owners]


if __name__ == "__main__":
    select.select([int(sys.argv[2])], [], [])
    end_left(int(sys.argv[1]))
