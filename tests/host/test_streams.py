"""Tests of ``paraglider.host.streams``: closed descriptors, any encoding, readers that are slow,
gone, or come back.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from paraglider.host.streams import Outlet, outlet_of

#: prepares, prints its argument, opens a socket and tells its number by the exit code
PROGRAM = """
import os, socket, sys
from paraglider.host.streams import finish, prepare
prepare()
print(sys.argv[1])
print(sys.argv[1], file=sys.stderr)
number = socket.socket().fileno()
same = [os.path.samestat(os.fstat(n), os.stat("/dev/null")) for n in range(3)]
os._exit(100 if finish() else number + (40 if all(same) else 0))
"""


def run(words: str, redirected: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """``PROGRAM`` with ``words``, its streams redirected as a shell does it."""
    script = f'exec "$@" {redirected}'
    command = ["sh", "-c", script, "sh", sys.executable, "-c", PROGRAM, words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("redirected", "null"),
    [(">&-", False), ("2>&-", False), ("<&-", False), ("<&- >&- 2>&-", True)],
)
def test_closed_descriptors(redirected: str, null: bool) -> None:
    """A closed descriptor becomes /dev/null, so no socket gets its number; an open one is used."""
    done = run("words", redirected)
    assert (done.returncode >= 40, done.returncode % 40 > 2) == (null, True)
    assert done.stdout == (b"" if ">&-" in redirected.split() else b"words\n")
    assert done.stderr == (b"" if "2>&-" in redirected else b"words\n")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "a → b … ü ✗ 語".encode()),
        ("latin-1", b"a -> b ... \xfc x ?"),
        ("ascii", b"a -> b ... ? x ?"),
    ],
)
def test_any_encoding(encoding: str, shown: bytes) -> None:
    """Characters that the encoding lacks are written in ASCII, on both streams."""
    done = run("a → b … ü ✗ 語", PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    assert (done.stdout.strip(), done.stderr.strip()) == (shown, shown)


def test_bytes_of_a_name_are_kept() -> None:
    """A file's name that is no UTF-8 comes out as it came in."""
    assert run(os.fsdecode(b"/etc/\xff")).stdout == b"/etc/\xff\n"


@pytest.mark.parametrize("redirected", [">/dev/full", "2>/dev/full"])
def test_a_full_disk_raises_at_finish(redirected: str) -> None:
    """Nothing raises before ``finish``."""
    done = run("words", redirected)
    assert done.returncode == 100
    assert done.stdout + done.stderr == b"words\n"


def test_a_slow_reader() -> None:
    """A full pipe takes what fits; the rest is dropped and counted, and when there is room again
    the truncated line is ended first. The pipe's own end stays blocking.
    """
    reading, writing = os.pipe()
    outlet = outlet_of(writing)
    line = b"x" * 5000 + b"\n"
    written = 0
    while outlet.put(line):
        written += 1
    assert (outlet.lost, written > 3) == (1, True)
    assert outlet.write(line) == len(line)
    assert outlet.lost == 2
    assert os.get_blocking(writing)
    os.set_blocking(reading, False)
    found = os.read(reading, 1 << 20)
    assert outlet.put(b"last\n")
    found += os.read(reading, 1 << 20)
    assert found == line * written + b"last\n"


def test_a_reader_that_goes_and_another_that_comes(tmp_path: Path) -> None:
    """Without a reader every line is dropped; the next reader gets later lines."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    outlet = outlet_of(os.open(fifo, os.O_WRONLY))
    assert outlet.put(b"one\n")
    assert os.read(reading, 100) == b"one\n"
    os.close(reading)
    assert not outlet.put(b"two\n")
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert outlet.put(b"three\n")
    assert (os.read(reading, 100), outlet.lost) == (b"three\n", 1)
    os.close(reading)


def test_a_socket_without_a_reader() -> None:
    """The journal's end of a stream socket is never waited for."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = outlet_of(ours.fileno())
        while outlet.put(b"x" * 1000 + b"\n"):
            assert not outlet.lost
        assert ours.getblocking()
        theirs.recv(100)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """Two outlets of one file, as after a fork, do not overwrite each other's lines."""
    file = tmp_path / "log"
    with file.open("wb") as stream:
        for name in (b"one\n", b"two\n"):
            assert outlet_of(stream.fileno()).put(name)
    assert file.read_bytes() == b"one\ntwo\n"


def test_where_the_pipe_cannot_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, the room is checked before a write, which does not block either."""
    reading, writing = os.pipe()

    def refuse(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as changed:
        changed.setattr(os, "open", refuse)
        outlet = outlet_of(writing)
    while outlet.put(b"x" * 999 + b"\n"):
        assert outlet.lost == 0
    assert outlet.lost == 1
    assert set(os.read(reading, 1 << 20)) == set(b"x\n")


def test_a_fork_drops_the_parents_state() -> None:
    """The rest of a line and the count of those lost are the parent's."""
    said: list[bytes] = []

    def two(data: bytes) -> int:
        if said:
            raise BlockingIOError
        said.append(data[:2])
        return 2

    outlet = Outlet(two)
    assert outlet.put(b"abcd\n")  # cut off after two bytes
    assert not outlet.put(b"lost\n")
    pid = os.fork()
    if pid == 0:
        said.clear()
        outlet.put(b"ef")
        os._exit(0 if (outlet.lost, said) == (0, [b"ef"]) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert outlet.lost == 1
