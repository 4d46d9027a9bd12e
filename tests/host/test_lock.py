"""Tests of ``paraglider.host.lock``: holders, and files that are not locks."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from waiting import TIMEOUT

from paraglider.errors import PlatformError
from paraglider.host import lock
from paraglider.host.lock import LockFile, is_held

HOLD = """
import signal, sys
from pathlib import Path
from paraglider.host.lock import LockFile
lock = LockFile(Path(sys.argv[1]))
print("held", flush=True)
signal.pause()
"""


def test_one_holder(tmp_path: Path) -> None:
    """No other process can take it; nothing is left behind; it can be released twice."""
    path = tmp_path / "run" / "lock"
    lock = LockFile(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_held(path)
    with pytest.raises(BlockingIOError):
        LockFile(path)
    lock.close()
    lock.close()
    assert not is_held(path)
    assert list(path.parent.iterdir()) == []
    with LockFile(path):
        assert is_held(path)


def test_a_holder_that_is_killed(tmp_path: Path) -> None:
    """Its file stays, and is no lock: it is removed, or taken by the next."""
    path = tmp_path / "lock"
    for take in (False, True):
        command = [sys.executable, "-c", HOLD, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert is_held(path)
            holder.send_signal(signal.SIGKILL)
        assert path.exists()
        if take:
            LockFile(path).close()
        else:
            assert not is_held(path)
        assert not path.exists()


def test_a_child_does_not_give_it_back(tmp_path: Path) -> None:
    """Only the process that created the file removes it."""
    path = tmp_path / "lock"
    with LockFile(path) as lock:
        pid = os.fork()
        if pid == 0:
            lock.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert is_held(path)


def test_a_file_that_is_removed_is_no_lock(tmp_path: Path) -> None:
    """A process that had the file open when its holder removed it takes the new file."""
    path = tmp_path / "lock"
    before = LockFile(path)
    path.unlink()
    with LockFile(path):
        assert is_held(path)
    before.close()


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_where_others_can_write(tmp_path: Path, mode: int) -> None:
    """A directory that others can write to is refused."""
    tmp_path.chmod(mode)
    with pytest.raises(PlatformError, match="others can write to its directory"):
        LockFile(tmp_path / "lock")
    tmp_path.chmod(0o755)
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(PlatformError, match="cannot create the lock"):
        LockFile(tmp_path / "lock")


@pytest.mark.root
def test_a_stranger_takes_none() -> None:
    """An unprivileged user who may enter the directory cannot open the file, so cannot lock it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, LockFile(Path(name) / "run/lock") as lock:
        Path(name).chmod(0o755)
        path = lock.path
        pid = os.fork()
        if pid == 0:
            os.setresuid(65534, 65534, 65534)
            refused = 0
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
                try:
                    os.open(path, flags, 0o666)
                except PermissionError:
                    refused += 1
            refused += path.parent.is_dir()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4


def test_a_lock_of_moments_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its holder releases it; one that hangs is an error with the remedy."""
    path = tmp_path / "lock"
    held = LockFile(path)
    taken = threading.Thread(target=lambda: lock.wait_for(path).close())
    taken.start()
    assert taken.is_alive()
    held.close()
    taken.join(TIMEOUT)
    assert not taken.is_alive()
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)
    with LockFile(path), pytest.raises(PlatformError, match="has held the lock .*; `fuser` names"):
        lock.wait_for(path)
