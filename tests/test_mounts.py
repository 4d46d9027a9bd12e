"""A killed test process leaves nothing on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import runs, wait_until

TESTS = Path(__file__).parent

#: a process of tests with a network, a child in a session of its own, and one that sees no mounts
RUN = """
import os, signal, subprocess, sys
import mounts
mounts.watch()
mounts.isolate()
subprocess.run(["ip", "netns", "add", "left"], check=True)
rest = [sys.executable, "-c", "import signal; signal.pause()"]
child = subprocess.Popen(rest, start_new_session=True, stdout=subprocess.DEVNULL)
chrooted = os.fork()
if chrooted == 0:
    os.setsid()
    os.chroot("/proc/self/fdinfo")
    os.close(1)
    signal.pause()
print(child.pid, chrooted, flush=True)
signal.pause()
"""


@pytest.mark.root
def test_nothing_is_left_of_a_killed_run(tmp_path: Path) -> None:
    """What it has started ends with it, in any session, though the process group was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        left = [int(pid) for pid in run.stdout.readline().split()]
        assert len(left) == 2
        assert all(runs(pid) for pid in left)
        os.killpg(run.pid, signal.SIGKILL)
    wait_until(lambda: not any(runs(pid) for pid in left))
    assert not Path("/run/netns/left").exists()
