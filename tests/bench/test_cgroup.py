"""A control group has the CPU time of its processes and of their children, and of no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import cgroup
from bench.cgroup import Group, hierarchies, remove_stale
from paraglider.lab import topology

#: burns 50 ms itself, then as much in a child; each says how much it really was
BURN = """\
import os, sys, time
print("ready", flush=True)
sys.stdin.readline()
def burn():
    until = time.process_time() + 0.05
    while time.process_time() < until: pass
burn()
child = os.fork()
if not child:
    burn()
    os._exit(0)
usage = os.wait4(child, 0)[2]
print(time.process_time() + usage.ru_utime + usage.ru_stime)
"""


def mounted(root: Path, *files: str) -> None:
    """Have hierarchies under ``root``, as these files show them."""
    for file in files:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (("cpuacct/cpuacct.usage",), ["cpuacct"]),
        (("cgroup.controllers",), ["."]),
        (("unified/cgroup.controllers", "cpuacct/cpuacct.usage"), ["cpuacct", "unified"]),
        ((), []),
    ],
)
def test_hierarchies(tmp_path: Path, files: tuple[str, ...], found: list[str]) -> None:
    """Version 1's cpuacct comes first, then version 2 at either place."""
    mounted(tmp_path, *files)
    assert hierarchies(tmp_path) == [tmp_path / name for name in found]


def test_without_a_hierarchy_there_is_no_group(tmp_path: Path) -> None:
    """The bench then goes by the machine's time."""
    assert Group.create("pg1", tmp_path) is None


def test_usage_in_both_versions(tmp_path: Path) -> None:
    """Nanoseconds in version 1, microseconds in version 2."""
    group = Group(tmp_path)
    (tmp_path / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    assert group.usage() == 1500
    (tmp_path / "cpuacct.usage").write_text("2500000\n")
    assert group.usage() == 2500


def test_leftovers_of_benches_that_were_killed_are_removed(tmp_path: Path) -> None:
    """Those of benches that run stay, and so does what has another name."""
    mounted(tmp_path, "cgroup.controllers")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f"paraglider-bench-pg{gone.pid}.2", f"paraglider-bench-pg{os.getpid()}", "pg1", "x"]
    for name in names:
        (tmp_path / name).mkdir()
    remove_stale(tmp_path)
    assert [name for name in names if (tmp_path / name).exists()] == names[1:]


HERE: list[Path | None] = [*hierarchies()] or [None]


@pytest.fixture(params=HERE, ids=lambda one: str(one and one.name))
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A real group in each hierarchy that this machine has."""
    if request.param is None:
        pytest.skip("this machine has no control groups")
    directory = request.param / f"paraglider-bench-{topology.new_prefix()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    made = Group(directory)
    yield made
    made.close()
    made.close()
    assert not directory.exists()


@pytest.mark.root
def test_children_count_and_others_do_not(group: Group) -> None:
    """What a process and its child used is in the group, and nothing of another process."""
    inside, outside = (
        subprocess.Popen(
            [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    try:
        for process in (inside, outside):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        group.add([inside.pid])
        group.add([inside.pid])
        before = group.usage()
        outside.communicate("\n")
        assert group.usage() - before < 50_000
        output, _ = inside.communicate("\n")
        # What it used before it was moved, it says too.
        assert 95_000 < group.usage() - before <= float(output) * 1e6
    finally:
        for process in (inside, outside):
            process.kill()
            process.communicate()


@pytest.mark.root
def test_a_process_that_has_exited_is_left_out(group: Group) -> None:
    """It may exit between the list and the move."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    group.add([gone.pid])
    assert (group.directory / "cgroup.procs").read_text() == ""


@pytest.mark.root
def test_create_makes_a_group_here() -> None:
    """On a machine with hierarchies for root the group is in one of them."""
    made = Group.create(topology.new_prefix())
    if made is None:
        pytest.skip("this machine has no control groups")
    try:
        assert made.directory.parent in hierarchies()
        assert cgroup.NAME.fullmatch(made.directory.name)
    finally:
        made.close()
