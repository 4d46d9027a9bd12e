"""A namespace runs programs, and takes them with it when it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab import namespace
from paraglider.lab.namespace import Namespace, execute
from paraglider.lab.scenario import notes
from paraglider.lab.topology import new_prefix


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A namespace of this test's."""
    with Namespace(f"{new_prefix()}-test") as made:
        yield made


def dead_pid() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def running(pid: int) -> bool:
    """True when the process runs; one that has ended and waits to be collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_execute_gives_output() -> None:
    """What a program prints is returned, and its standard input is what was given."""
    assert execute(["cat"], text="hello").stdout == "hello"


def test_execute_tells_the_last_words_of_a_failure() -> None:
    """A failing program's message has the program, the exit code and what it said."""
    script = "import sys; print('oh no', file=sys.stderr); sys.exit(3)"
    with pytest.raises(PlatformError, match=r"import sys.*: exit 3: oh no"):
        execute([sys.executable, "-c", script])


def test_execute_without_check_returns_the_failure() -> None:
    """With check off the caller reads the exit code."""
    assert execute(["false"], check=False).returncode == 1


def test_execute_names_a_missing_program() -> None:
    """A program that is not installed is the operator's to install."""
    with pytest.raises(OperatorError, match="no-such-program is missing; run scripts/bootstrap"):
        execute(["no-such-program"])


def test_execute_ends_what_takes_too_long() -> None:
    """A program that does not end is ended, and said so."""
    with pytest.raises(PlatformError, match=r"sleep 60: no end after 0\.1 s"):
        execute(["sleep", "60"], timeout=0.1)


def test_alive_tells_the_living_from_the_dead() -> None:
    """This process lives; one that has ended does not."""
    assert namespace.alive(os.getpid())
    assert not namespace.alive(dead_pid())


@pytest.mark.root
def test_a_namespace_is_a_network_of_its_own(inside: Namespace) -> None:
    """Inside there is loopback, up, and nothing else."""
    links = inside.run(["ip", "-o", "link"]).stdout.splitlines()
    assert len(links) == 1
    assert "LOOPBACK,UP" in links[0]


@pytest.mark.root
def test_programs_keep_their_process_id(inside: Namespace) -> None:
    """The id of a started program is that of the program itself, so signals reach it."""
    process = inside.popen(["sleep", "60"])
    inside.run(["true"])
    assert inside.pids() == [process.pid]


@pytest.mark.root
def test_close_ends_even_the_deaf() -> None:
    """Closing ends a program that ignores SIGTERM, and its children, and removes the name."""
    made = Namespace(f"{new_prefix()}-deaf")
    script = "trap '' TERM; sleep 60 & echo deaf; wait; sleep 60"
    process = made.popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = made.pids()
    assert len(pids) == 2
    made.close()
    made.close()
    assert made.name not in namespace.names()
    assert not [pid for pid in pids if running(pid)]


@pytest.mark.root
def test_ip_reports_a_line_that_fails(inside: Namespace) -> None:
    """A wrong line of a batch is an error that says which."""
    with pytest.raises(PlatformError, match="no-such-link"):
        inside.ip("link set no-such-link up")


@pytest.mark.root
def test_stale_removes_what_the_dead_left_and_nothing_else(inside: Namespace) -> None:
    """Leftovers of dead makers go, those to keep stay, those of living makers stay."""
    prefix = f"pg{dead_pid()}"
    with Namespace(f"{prefix}-left") as left, Namespace(f"{prefix}.1-kept") as kept:
        others = [note["prefix"] for note in notes().values()]  # labs that other tests keep up
        removed = namespace.stale(keep=[f"{prefix}.1", *others])
        assert left.name in removed
        assert left.name not in namespace.names()
        assert {kept.name, inside.name} <= set(namespace.names())


@pytest.mark.root
def test_remove_all_takes_one_prefix_alone(inside: Namespace) -> None:
    """A prefix that begins like another one's does not take the other one's namespaces."""
    prefix = inside.name.rpartition("-")[0]
    with Namespace(f"{prefix}0-other") as other:
        namespace.remove_all(prefix)
        assert inside.name not in namespace.names()
        assert other.name in namespace.names()
