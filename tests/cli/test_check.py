"""Tests of ``paraglider.cli.check``: the summary, the warnings, the errors, the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from examples import CONF, EXAMPLES

from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.config.service import METHODS

# sources.conf names a file of backends: tests/test_docs_sources.py has one.
CHECKED = [*(file.name for file in EXAMPLES if file.name != "sources.conf"), "glider.yaml"]

TWO = """\
services:
  - name: web
    vip: 192.168.0.11/24
    protocol: tcp
    ports: [80, 8000-8099]
    strategy: wrr
    affinity: client
    return: direct
    carrier: auto
    backends: [10.0.0.1, {address: 10.0.0.2, weight: 3}]
  - name: all6
    vip: 2001:db8::11/64
    protocol: any
    carrier: worker
    backends: [fd00:10::1]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A valid file of two services."""
    path = tmp_path / "c"
    path.write_text(TWO)
    return path


def outcome(*arguments: str) -> Any:
    """The exit code of `paraglider` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", arguments)
    return caught.value.code


def test_three_lines_for_each_service(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """The file, ok, the properties of a service as key=value, the meaning of its forward method,
    and of its strategy.
    """
    assert outcome("check", "-c", str(file)) == 0
    printed = capfd.readouterr()
    ok, *lines = printed.out.splitlines()
    assert ok == f"{file}: ok"
    assert lines[::3] == [
        (
            "service=web vip=192.168.0.11/24 protocol=tcp ports=80,8000-8099 forward=nat"
            " return=direct carrier=auto decide=python adopt=auto strategy=wrr affinity=client"
            " backends=2 weight=4"
        ),
        (
            "service=all6 vip=2001:db8::11/64 protocol=any ports=all forward=nat return=via"
            " carrier=worker decide=python adopt=auto strategy=rr affinity=flow backends=1 weight=1"
        ),
    ]
    assert lines[1].startswith("  nat: a worker decides about a flow's first packets")
    assert lines[4].startswith("  nat: every packet passes a worker and is rewritten, both ways")
    assert lines[2].startswith("  wrr picks the next backend in turn, by weight")
    assert lines[5].startswith("  rr picks the next backend in turn, whatever its weight")
    assert len(lines) == 6
    assert printed.err == ""


def test_which_vips_are_announced(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the properties of their services."""
    common = "protocol: tcp, forward: proxy, backends: [10.0.0.1]"
    one, other = f"{{name: a, vip: 192.0.2.1, ports: 80, {common}}}", "{name: b, vip: 192.0.2.2/24,"
    file.write_text(f"announce: {{}}\nservices: [{one}, {other} ports: 80, {common}}}]\n")
    assert outcome("check", "-c", str(file)) == 0
    first, second = capfd.readouterr().out.splitlines()[1::3]
    assert first.endswith(" announced=yes")
    assert "announced" not in second


def test_whose_turn(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """There is one for all workers where the kernel decides."""
    service = "{name: a, vip: 192.0.2.1, protocol: tcp, decide: DECIDE, backends: [10.0.0.1]}"
    for decide, turns in (
        ("python", "each worker keeps its own turn."),
        ("auto", "one turn for all workers."),
    ):
        file.write_text(f"services: [{service.replace('DECIDE', decide)}]\n")
        assert outcome("check", "-c", str(file)) == 0
        last = capfd.readouterr().out.splitlines()[-1]
        assert last == f"  rr picks the next backend in turn, whatever its weight; {turns}"


@pytest.mark.parametrize("name", CHECKED)
def test_examples_pass_without_warnings(capfd: pytest.CaptureFixture[str], name: str) -> None:
    """The committed examples are valid without warnings."""
    assert outcome("check", "-c", str(CONF / name)) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{CONF / name}: ok\n")
    assert printed.err == ""


def test_options_before_the_command_count(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """-c and -6 may stand before `check`."""
    assert outcome("-c", str(file), "-6", "check") == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["service=all6", "nat:", "rr"]


def test_own_option_wins(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """-c after `check` is the nearer one."""
    assert outcome("-c", "/nowhere", "check", "-c", str(file)) == 0
    assert capfd.readouterr().out.startswith(f"{file}: ok\n")


def test_the_file_as_an_argument(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """It is that of -c; both are one too many."""
    assert outcome("check", str(file)) == 0
    assert outcome("-c", "/nowhere", "check", str(file)) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if line.endswith(": ok")] == [
        f"{file}: ok",
        f"{file}: ok",
    ]
    assert outcome("check", str(file), "-c", str(file)) == 1
    assert "give the file once, as an argument or with -c" in capfd.readouterr().err


def test_json(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """One object on stdout, nothing on stderr, and the exit code of the text."""
    file.write_text("timeouts: {syn: 5s}\n" + TWO)
    assert outcome("check", "--json", str(file)) == 0
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert (printed.err, found["valid"], found["exit_code"], found["errors"]) == ("", True, 0, [])
    (warning,) = found["warnings"]
    assert (warning["path"], warning["line"], warning["column"]) == ("timeouts.syn", 1, 17)
    assert warning["message"] == "`syn` of 5 s forgets flows that are still alive"
    assert [service["service"] for service in found["services"]] == ["web", "all6"]
    assert found["services"][0]["weight"] == 4


def test_json_of_mistakes(capfd: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    """Each has its path, place, message and remedy; also of a list of backends, and of no file."""
    file.write_text(TWO.replace("tcp", "tpc").replace("2001:db8::11/64", "x"))
    assert outcome("check", "--json", str(file)) == 1
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert (printed.err, found["valid"], found["exit_code"]) == ("", False, 1)
    assert [(error["path"], error["line"]) for error in found["errors"]] == [
        ("services[0].protocol", 4),
        ("services[1].vip", 12),
    ]
    assert found["errors"][0]["remedy"].startswith("did you mean tcp? write one of: tcp, udp")
    (tmp_path / "list").write_text("10.0.0.1\nx\n")
    service = f"{{name: a, vip: 192.0.2.1, protocol: tcp, backends: {{file: {tmp_path}/list}}}}"
    file.write_text(f"services: [{service}]\n")
    assert outcome("check", "--json", str(file)) == 1
    (error,) = json.loads(capfd.readouterr().out)["errors"]
    assert (error["file"], error["line"], error["column"]) == (f"{tmp_path}/list", 2, 1)
    assert outcome("check", "--json", str(tmp_path / "no")) == 1
    (error,) = json.loads(capfd.readouterr().out)["errors"]
    assert (error["message"], error["line"]) == ("there is no such file", None)


def test_file_of_the_working_directory(
    capfd: pytest.CaptureFixture[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without -c the file of the working directory is used."""
    monkeypatch.chdir(file.parent)
    file.rename("paraglider.conf")
    assert outcome("check") == 0
    assert capfd.readouterr().out.startswith("paraglider.conf: ok\n")


def test_warnings_go_to_stderr(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """A warning has its place, stands on stderr and stops nothing."""
    file.write_text("timeouts: {syn: 5}\n" + TWO)
    assert outcome("check", "-c", str(file)) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{file}: ok\n")
    assert printed.err.startswith(f"warning: {file}:1:17: `syn` of 5 s forgets flows")


def test_mistakes_exit_1(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """Every mistake is a line on stderr, nothing is on stdout."""
    file.write_text(TWO.replace("tcp", "tpc").replace("2001:db8::11/64", "x"))
    assert outcome("check", "-c", str(file)) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    places = [line.partition(": ")[0] for line in printed.err.splitlines()]
    assert places == [f"{file}:4:15", f"{file}:12:10"]


def test_missing_file_exits_1(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No file, no traceback."""
    assert outcome("check", "-c", str(tmp_path / "c")) == 1
    assert capfd.readouterr().err == (
        f"{tmp_path / 'c'}: there is no such file; give another with -c FILE\n"
    )


def test_host_option_asks_for_the_interfaces(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """Only with --host a missing interface is a mistake."""
    file.write_text("network: {public: {interface: no-such-if}}\n" + TWO)
    assert outcome("check", "-c", str(file)) == 0
    capfd.readouterr()
    assert outcome("check", "-c", str(file), "--host") == 1
    assert f"{file}:1:31: there is no interface `no-such-if`" in capfd.readouterr().err


def test_host_option_takes_what_is_there(file: Path) -> None:
    """The loopback interface is on every host."""
    file.write_text("network: {public: {interface: lo}}\n" + TWO)
    assert outcome("check", "-c", str(file), "--host") == 0


@pytest.mark.parametrize(
    ("carrier", "why", "out", "err"),
    [
        ("auto", "", "carrier: bpf\n", ""),
        (
            "auto",
            "no libbpf; install it",
            "carrier: worker\n",
            "warning: BPF carries no flow here: no libbpf; install it\n",
        ),
        (
            "bpf",
            "no libbpf",
            "carrier: worker\n",
            "warning: BPF carries no flow here, and `carrier: bpf` of web needs it: no libbpf\n",
        ),
        ("worker", "no libbpf; install it", "", ""),
    ],
)
def test_what_carries_on_this_host(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: Path,
    carrier: str,
    why: str,
    out: str,
    err: str,
) -> None:
    """With `--host`, where a service wants BPF; the reason, and who cannot do without."""
    monkeypatch.setattr("paraglider.cli.check.carrier_lack", lambda _: (why, {}))
    monkeypatch.setattr("paraglider.cli.check.seen_from_here", lambda _: [])
    monkeypatch.setattr("paraglider.cli.check.route_warnings", lambda *_: [])
    file.write_text(TWO.replace("carrier: auto", f"carrier: {carrier}"))
    assert outcome("check", "--host", "-c", str(file)) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{out}{file}: ok\n")
    assert printed.err == err
    assert outcome("check", "-c", str(file)) == 0
    assert "carrier: " not in capfd.readouterr().out.partition("service=")[0]


@pytest.mark.parametrize(("carrier", "needs"), [("auto", ""), ("bpf", "`carrier: bpf` of ")])
def test_a_method_that_bpf_cannot_carry_here(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: Path,
    carrier: str,
    needs: str,
) -> None:
    """The services of that method are named, with the reason; BPF carries the others."""
    monkeypatch.setattr(
        "paraglider.cli.check.carrier_lack",
        lambda _: ("", {METHODS["nat"]: "no source of a route"}),
    )
    monkeypatch.setattr("paraglider.cli.check.seen_from_here", lambda _: [])
    monkeypatch.setattr("paraglider.cli.check.route_warnings", lambda *_: [])
    file.write_text(TWO.replace("carrier: auto", f"carrier: {carrier}"))
    assert outcome("check", "--host", "-c", str(file)) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"carrier: bpf\n{file}: ok\n")
    needing = f", and {needs}web needs it" if needs else ""
    assert printed.err == (
        f"warning: BPF carries no flow of web here{needing}: no source of a route\n"
    )
