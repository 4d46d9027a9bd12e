"""Rounds, options, and that a run leaves nothing behind."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from waiting import TIMEOUT, runs, wait_until

from bench.__main__ import bench, result_name, save
from bench.host import ROOT
from bench.peers import PEERS
from bench.results import PeerResult, Results
from bench.run import Options, rotated
from paraglider.errors import OperatorError
from paraglider.lab import namespace


def test_every_round_starts_with_another_peer() -> None:
    """Over as many rounds as peers each is first once, and none is left out."""
    peers = [PeerResult(name, name) for name in "abc"]
    orders = ["".join(peer.name for peer in rotated(peers, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]
    assert rotated([], 1) == []


def test_options_choose_peers() -> None:
    """All by default, fewer with --quick, the named ones with --only, in the order of the table."""
    assert [peer.name for peer in Options().peers] == list(PEERS)
    quick = [peer.name for peer in Options(quick=True).peers]
    assert {"dnat", "haproxy", "offload"} <= set(quick) < set(PEERS)
    assert [peer.name for peer in Options(only=("offload", "dnat", "core")).peers] == [
        "dnat",
        "offload",
    ]


def test_the_core_is_left_out_when_not_named() -> None:
    """``--only dnat`` measures no flow table, ``--only core`` nothing else."""
    assert Options().core
    assert not Options(only=("dnat",)).core
    assert Options(only=("core",)).core
    assert Options(only=("core",)).peers == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (Options(), "latest"),
        (Options(rounds=5), "latest"),
        (Options(rounds=2), "partial"),
        (Options(only=("dnat",)), "partial"),
        (Options(quick=True, rounds=3), "quick"),
    ],
)
def test_only_a_full_run_is_for_the_record(options: Options, name: str) -> None:
    """Quick, partial and short runs do not overwrite it."""
    assert result_name(options) == name


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt peer is an operator's mistake that names those there are."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    done = CliRunner().invoke(bench, ["--only", "dnat,nginy"])
    assert isinstance(done.exception, OperatorError)
    assert "there is no nginy to bench; choose from routed, " in str(done.exception)


def test_without_root_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces need root; the remedy is sudo."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = CliRunner().invoke(bench, ["--quick"])
    assert isinstance(done.exception, OperatorError)
    assert "run it as root: " in str(done.exception)


def test_results_are_kept_for_their_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Results
) -> None:
    """Files written by root get the owner of the directory; without
    matplotlib there is no picture.
    """
    given: list[tuple[str, int]] = []
    monkeypatch.setattr("os.chown", lambda file, uid, _gid: given.append((file.name, uid)))
    monkeypatch.setattr("bench.__main__.ROOT", tmp_path)
    monkeypatch.setattr("bench.__main__.RESULTS", tmp_path)
    monkeypatch.setattr("bench.__main__.PICTURE_PYTHON", tmp_path / "none")
    output = io.StringIO()
    save(results, "quick", Console(file=output))
    assert Results.from_json((tmp_path / "quick.json").read_text()) == results
    assert given == [("quick.json", tmp_path.stat().st_uid)]
    assert output.getvalue() == (
        "No picture: matplotlib is not there (see scripts/bench).\nWritten: quick.json\n"
    )


@pytest.mark.root
def test_an_interrupt_leaves_nothing_behind() -> None:
    """Ctrl-C while a peer is up ends everything: exit 130, no namespace, no process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "dnat"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        client, backend = f"pg{process.pid}-client", f"pg{process.pid}-backend1"
        await_load(process, client)
        inside = [namespace.Namespace(name, attach=True) for name in (client, backend)]
        pids = [pid for one in inside for pid in one.pids()]
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 130, output
    assert "Interrupted; everything that was built has been removed." in output
    assert "Traceback" not in output
    assert not [name for name in namespace.names() if name.startswith(f"pg{process.pid}-")]
    assert pids
    assert not [pid for pid in pids if runs(pid)]


def await_load(process: subprocess.Popen[str], client: str) -> None:
    """Wait until wrk runs in the client's namespace, of the bench ``process``."""

    def loaded() -> bool:
        assert process.poll() is None, "no load was seen"
        if client not in namespace.names():
            return False
        pids = namespace.Namespace(client, attach=True).pids()
        return any(name_of(pid).startswith("wrk") for pid in pids)

    wait_until(loaded)


def name_of(pid: int) -> str:
    """The name of a process, empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except OSError:
        return ""
