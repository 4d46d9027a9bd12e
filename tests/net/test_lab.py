"""``paraglider lab`` as a whole: its output, and that nothing is left when it is stopped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from inside import InsideBalancer
from rich.console import Console
from waiting import TIMEOUT, wait_until

from paraglider.host.ownership import netns_cookie
from paraglider.lab import member, namespace, removal
from paraglider.lab.fleet_scenario import FleetLab
from paraglider.lab.flows import OpenFlows
from paraglider.lab.pair_scenario import PairLab
from paraglider.lab.scenario import LabOptions
from paraglider.lab.several_scenario import SeveralLab

pytestmark = pytest.mark.root
LONGEST = 240  # seconds that a lab may take on a busy machine
LAB = [sys.executable, "-m", "paraglider", "lab"]
#: also where this run was started in the background, by a shell that ignores Ctrl-C there
INTERRUPTIBLE = ["env", "--default-signal=INT", *LAB]


def state() -> set[str]:
    """The files of running set-ups and labs in /run."""
    return {
        str(path)
        for kind in ("setup", "backend", "lab")
        for path in removal.STATE.glob(f"{kind}-*.json")
    }


def orphans(files: set[str]) -> list[str]:
    """Those of ``files`` that exist, and whose network namespace does not: other runs on this host
    may be active, each in its own namespaces. A lab's file has the prefix of their names.
    """
    if not files:
        return []
    owned = set()
    for name in namespace.names():
        owned.add(name.rpartition("-")[0])
        # It may be gone.
        with contextlib.suppress(OSError), namespace.Namespace(name, attach=True).entered():
            owned.add(f"{netns_cookie():x}")
    left = [path for path in files if Path(path).stem.rpartition("-")[2] not in owned]
    return sorted(path for path in left if Path(path).exists())


def left_of(pid: int, directory: Path, before: set[str]) -> list[str]:
    """The leftovers of the lab with process id ``pid`` and temporary files in ``directory``."""
    names = [name for name in namespace.names() if name.startswith((f"pg{pid}-", f"pg{pid}."))]
    files = [str(path) for path in directory.iterdir()]
    processes = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory) in entry.read_text():
                processes.append(entry.read_text())
        except OSError:
            continue
    return names + files + processes + orphans(state() - before)


def lost_pings(output: str) -> bool:
    """Whether pings that were not answered are the only fault. The kernel's answers to pings share
    one small buffer a core, over all network namespaces (net/ipv4/icmp.c), and other tests fill it.
    """
    faults = re.findall("^✗ .*", output, re.MULTILINE)
    return bool(faults) and all(
        re.fullmatch(r"✗ ICMP echo over IPv[46]: \d+× timed out", fault) for fault in faults
    )


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name, for the lab's control socket is a file in one below it."""
    with tempfile.TemporaryDirectory(prefix="pg-") as made:
        yield Path(made)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary directory is the test's, so that leftovers are seen."""
    return {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"}


@pytest.mark.parametrize(
    ("forward", "workers", "carrier"),
    [
        ("nat", 1, "worker"),
        ("nat", 2, ""),
        ("offload", 1, ""),
        ("dsr", 2, "xdp"),
        ("proxy", 2, ""),
        ("static", 1, ""),
    ],
)
def test_the_lab_shows_every_backend(
    place: dict[str, str], tmp_path: Path, forward: str, workers: int, carrier: str
) -> None:
    """It exits with 0, prints every backend's share in both families and, where there is a choice,
    the carrier, BPF by default, and leaves nothing.
    """
    if len(os.sched_getaffinity(0)) < workers:
        pytest.fail("the tests need two cores")
    before = state()
    command = [*LAB, "--forward", forward, "--workers", str(workers)]
    command += ["--carrier", carrier] if carrier else []
    for _ in range(4):
        lab = subprocess.Popen(command, env=place, stdout=subprocess.PIPE, text=True)
        output, _ = lab.communicate(timeout=LONGEST)
        assert left_of(lab.pid, tmp_path, before) == []
        if not lost_pings(output):
            break
    assert lab.returncode == 0, output
    rows = re.findall(r"│ (\S.*?) +│ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+) │", output)
    assert [row[0] for row in rows] == [
        f"{kind} over IPv{family}"
        for kind in ("TCP (HTTP)", "UDP (echo)", "ICMP echo")[: 1 if forward == "proxy" else 3]
        for family in (4, 6)
    ]
    for _, *shares, failed in rows:
        assert failed == "0"
        assert sum(map(int, shares)) == 30
        if workers == 1:
            assert shares == ["10", "10", "10"]
    carriers = [carrier or "bpf"] if forward in ("nat", "dsr") else []
    assert re.findall(r"Flows are carried by (\w+)", output) == carriers
    assert "Every backend answered over IPv4 and IPv6" in output
    assert ("Downloaded 8,000,000 bytes" in output) == (forward == "dsr")


def test_the_lab_shows_failover(place: dict[str, str], tmp_path: Path) -> None:
    """With `-f` a backend is killed under load, leaves and returns, a host joins, one drains: it
    exits with 0, only connections to the killed one failed before it was out, and nothing is left.
    """
    before = state()
    lab = subprocess.Popen([*LAB, "-f"], env=place, stdout=subprocess.PIPE, text=True)
    output, _ = lab.communicate(timeout=LONGEST)
    assert lab.returncode == 0, output
    moments = re.findall(r"^   ([^:]+): (backend.*) · failed 0$", output, re.MULTILINE)
    assert [set(re.findall(r"backend(\d)", shares)) for _, shares in moments[:4]] == [
        set("123"), set("13"), set("123"), set("1234"),
    ]  # fmt: skip
    drained = re.search(r"from (backend\d) continued to 40,000,000 bytes", output)
    assert drained is not None, output
    assert drained[1] not in moments[4][1]
    assert re.search(r"joining or draining none failed", output)
    assert left_of(lab.pid, tmp_path, before) == []


TWO = {"connections": 8, "balancers": 2}

several = pytest.mark.parametrize(
    ("kind", "options", "acts"),
    [
        (partial(FleetLab, has_bird=False), LabOptions("dsr", **TWO), ["kill"]),
        (partial(FleetLab, has_bird=True), LabOptions("nat", **TWO), ["power"]),
        (PairLab, LabOptions("offload", connections=8, pair=True), ["power"]),
    ],
    ids=["lines", "bird", "pair"],
)


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[SeveralLab, io.StringIO]]:
    """A function that makes a lab of several balancers, which this process sets up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(member, "LabBalancer", InsideBalancer)

    def lab(kind: Callable[..., SeveralLab], *given: Any) -> tuple[SeveralLab, io.StringIO]:
        output = io.StringIO()
        return kind(given[0], Console(file=output, width=120), given[1]), output

    return lab


def left_by(lab: SeveralLab, directory: Path) -> list[str]:
    """What a lab of this process has left."""
    names = [name for name in namespace.names() if name.startswith(f"{lab.prefix}-")]
    return names + [str(path) for path in directory.iterdir()]


@several
def test_the_lab_shows_several_balancers(
    make: Any, tmp_path: Path, kind: Callable[..., SeveralLab], options: LabOptions, acts: list[str]
) -> None:
    """One goes and returns: no flow breaks, and nothing is left."""
    before = state()
    lab, output = make(kind, options, acts)
    assert lab.run(), output.getvalue()
    rows = re.findall(
        r"│ ((?:is|comes|loses) .*?) +│ +(\d+) │ +(\d+) │ +(\d+) │", output.getvalue()
    )
    events = {"kill": ["is killed", "comes back"], "power": ["loses its power", "is back"]}
    assert [row[0] for row in rows] == events[acts[0]]
    for _, flows, broken, opened in rows:
        assert (flows, broken) == ("16", "0")
        assert int(opened) > 0
    assert left_by(lab, tmp_path) == []
    assert orphans(state() - before) == []


@several
def test_an_interrupt_among_several_balancers_leaves_nothing(
    make: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[..., SeveralLab],
    options: LabOptions,
    acts: list[str],
) -> None:
    """Daemons, what runs beside them, and the thread that leads packets to them have begun."""
    before, threads = state(), threading.active_count()
    lab, _ = make(kind, options, acts)

    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(OpenFlows, "__init__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lab.run()
    assert threading.active_count() <= threads
    assert left_by(lab, tmp_path) == []
    assert orphans(state() - before) == []


@pytest.mark.parametrize("moment", range(1, 6))
def test_an_interrupt_at_any_step_leaves_nothing(
    place: dict[str, str], tmp_path: Path, moment: int
) -> None:
    """Ctrl-C right after the line of step 1 … 5 ends it, and nothing is left, nor mounted."""
    before = state()
    for _ in range(3):
        ended, said, mounted = interrupted(place, f"{moment}. ")
        assert left_of(ended.pid, tmp_path, before) == []
        assert " bpf paraglider" not in mounted
        if ended.returncode != 0:  # else this process was so late that the lab was done
            break
    assert ended.returncode != 0, said
    assert "Interrupted; everything that was built has been removed." in said
    assert "Traceback" not in said


def interrupted(place: dict[str, str], begin: str) -> tuple[subprocess.Popen[str], str, str]:
    """A lab that gets Ctrl-C after the line that begins with ``begin``, once it has ended; its
    output, and what is mounted where it was.
    """
    lab = subprocess.Popen(
        ["unshare", "--mount", *INTERRUPTIBLE],  # others on this host may have the same mount
        env={**place, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert lab.stdout is not None
    said = lab.stdout.readline()
    mounts = os.open(f"/proc/{lab.pid}/ns/mnt", os.O_RDONLY)
    while not said.splitlines()[-1].startswith(begin):
        line = lab.stdout.readline()
        assert line, said
        said += line
    os.killpg(lab.pid, signal.SIGINT)
    said += lab.stdout.read()
    lab.stdout.close()
    lab.wait(TIMEOUT)
    inside = ["nsenter", f"--mount=/proc/self/fd/{mounts}", "cat", "/proc/self/mountinfo"]
    mounted = subprocess.run(inside, pass_fds=[mounts], capture_output=True, text=True, check=True)
    os.close(mounts)
    return lab, said, mounted.stdout


def imports(_pid: int, _directory: Path) -> bool:
    """Nothing is built yet."""
    return True


def builds(pid: int, _directory: Path) -> bool:
    """Some namespaces exist."""
    return any(name.startswith(f"pg{pid}-") for name in namespace.names())


def starts(_pid: int, directory: Path) -> bool:
    """The daemon has begun its log."""
    return any(log.stat().st_size for log in directory.glob("paraglider-lab-*/daemon.log"))


@pytest.mark.parametrize("moment", [imports, builds, starts])
def test_an_interrupt_at_any_moment_leaves_nothing(
    place: dict[str, str], tmp_path: Path, moment: Callable[[int, Path], bool]
) -> None:
    """Two Ctrl-C in a row, the second while it cleans up: nothing stays behind."""
    before = state()
    lab = subprocess.Popen(
        INTERRUPTIBLE,
        env=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_until(lambda: moment(lab.pid, tmp_path))
    built = len(namespace.names())
    os.killpg(lab.pid, signal.SIGINT)
    wait_until(lambda: lab.poll() is not None or len(namespace.names()) != built or built == 0)
    if lab.poll() is None:
        os.killpg(lab.pid, signal.SIGINT)
    lab.communicate(timeout=TIMEOUT)
    assert left_of(lab.pid, tmp_path, before) == []


def _fetch(url: str) -> bytes:
    """The content of ``url``, on this host."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        found: bytes = response.read()
    return found


def _picks(url: str) -> int:
    """How many flows the web services of the stats page at ``url`` have had."""
    rows = json.loads(_fetch(f"{url}api/v1/services"))
    return sum(row["conns"] or 0 for row in rows if row["service"].startswith("web"))


def test_keep_leaves_it_up_until_down(place: dict[str, str], tmp_path: Path) -> None:
    """A kept lab answers afterwards, by the very command it prints; the page that it names shows
    traffic; and ``--down`` removes it, and does no harm again.
    """
    before = state()
    lab = subprocess.Popen([*LAB, "--keep"], env=place, stdout=subprocess.PIPE, text=True)
    output, _ = lab.communicate(timeout=LONGEST)
    try:
        assert lab.returncode == 0 or lost_pings(output), output
        match = re.search(r"(ip netns exec \S+-client curl http://\S+)", output)
        assert match is not None, output
        answer = subprocess.run(match[1].split(), capture_output=True, text=True, timeout=TIMEOUT)
        assert re.fullmatch(r"backend[123]\n", answer.stdout)
        url = re.search(r"Stats page: +(http://127\.0\.0\.1:\d+/)", output)
        assert url is not None, output
        assert b"<title>Paraglider</title>" in _fetch(url[1])
        # more than the scenario's own: there is traffic
        wait_until(lambda: _picks(url[1]) > 60)
        (note,) = (state() - before) & {str(path) for path in removal.notes()}
        assert json.loads(Path(note).read_text())["prefix"] == f"pg{lab.pid}"
        assert not [name for name in namespace.stale([f"pg{lab.pid}"]) if str(lab.pid) in name]
    finally:
        down = subprocess.run([*LAB, "--down"], env=place, capture_output=True, text=True)
    assert f"pg{lab.pid}" in down.stdout
    assert left_of(lab.pid, tmp_path, before) == []
    down = subprocess.run([*LAB, "--down"], env=place, capture_output=True, text=True)
    assert (down.returncode, down.stdout) == (0, "No lab is running.\n")
