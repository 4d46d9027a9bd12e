"""Tests of ``paraglider.cli.main``: the options, and the time of imports."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import click
import pytest

import paraglider
from paraglider.cli.errors import run_command
from paraglider.cli.main import COMMANDS, LOG_STYLES, families, main
from paraglider.daemon import log


def outcome(*arguments: str) -> Any:
    """The exit code of `paraglider` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", arguments)
    return caught.value.code


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of the balancer, which is not run."""
    seen: list[dict[str, Any]] = []
    module = types.ModuleType("paraglider.cli.run")
    module.run = lambda **options: seen.append(options)  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "paraglider.cli.run", module)
    return seen


def test_without_a_command_the_balancer_runs(calls: list[dict[str, Any]]) -> None:
    """No options: the defaults, both families."""
    assert outcome() == 0
    assert calls == [
        {
            "config": None,
            "families": frozenset({4, 6}),
            "failover": False,
            "debug": False,
            "queue_length": None,
            "user": None,
            "log_style": "auto",
        }
    ]


def test_every_option_arrives(calls: list[dict[str, Any]]) -> None:
    """Each option reaches the command."""
    assert outcome("-c", "x", "-6", "-f", "-D", "-Q", "1024", "-U", "nobody", "--log", "json") == 0
    (options,) = calls
    assert options == {
        "config": "x",
        "families": frozenset({6}),
        "failover": True,
        "debug": True,
        "queue_length": 1024,
        "user": "nobody",
        "log_style": "json",
    }


def test_the_ways_to_log_are_the_logs() -> None:
    """``--log`` accepts the styles of the log module, which the command line does not import."""
    assert LOG_STYLES == log.STYLES
    assert outcome("--log", "html") == 1


@pytest.mark.parametrize(
    ("four", "six", "chosen"),
    [
        (False, False, {4, 6}),
        (True, True, {4, 6}),
        (True, False, {4}),
        (False, True, {6}),
    ],
)
def test_families(four: bool, six: bool, chosen: set[int]) -> None:
    """Without -4 and -6 both families are used."""
    assert families(four, six) == chosen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "No such option '--nonsense'; see `paraglider --help`"),
        (["nonsense"], "No such command 'nonsense'; see `paraglider --help`"),
        (["chekc"], "No such command 'chekc'. Did you mean 'check'?; see `paraglider --help`"),
        (["--log", "jsn"], "'syslog'. Did you mean 'json'?; see `paraglider --help`"),
        (["-Q", "0"], "0 is not in the range"),
        (["-Q", "many"], "'many' is not a valid integer"),
        (["-c"], "requires an argument"),
        (["check", "--nonsense"], "see `paraglider check --help`"),
    ],
)
def test_wrong_arguments(
    capfd: pytest.CaptureFixture[str],
    calls: list[dict[str, Any]],
    arguments: list[str],
    words: str,
) -> None:
    """Wrong arguments exit 1 with one line, and nothing runs."""
    assert outcome(*arguments) == 1
    message = capfd.readouterr().err
    assert message.startswith("paraglider: ")
    assert words in message
    assert message.count("\n") == 1
    assert calls == []


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    """--version prints the package's version."""
    assert outcome("--version") == 0
    assert capfd.readouterr().out == f"paraglider {paraglider.__version__}\n"


def test_help_lists_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    """--help names every command with its line."""
    assert outcome("--help") == 0
    text = capfd.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert name in text
        assert line in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_listed_command_is_there(capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Each command of the table can be loaded and has a help text."""
    assert outcome(name, "--help") == 0
    assert f"Usage: paraglider {name}" in capfd.readouterr().out


def test_check_loads_nothing_of_the_packet_path(tmp_path: Any) -> None:
    """`check` runs where only the configuration's libraries are installed."""
    program = (
        "import sys\n"
        "from paraglider.cli.main import main\n"
        "main.main(['check', '-c', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'scapy', 'netfilterqueue', 'pyroute2', 'prctl', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    file = tmp_path / "c"
    file.write_text(
        "services: [{name: a, vip: 192.0.2.1/24, protocol: tcp, backends: [10.0.0.1]}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_runs_the_command_line() -> None:
    """`python -m paraglider` is the same command."""
    command = [sys.executable, "-m", "paraglider", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"paraglider {paraglider.__version__}\n"


def test_the_go_paraglider_s_spelling(calls: list[dict[str, Any]]) -> None:
    """`-config FILE`, with one dash, is `-c FILE`, and so is `-cFILE`."""
    for arguments in (("-config", "x"), ("-c", "x"), ("--config", "x"), ("-cx",)):
        assert outcome(*arguments) == 0
    assert [options["config"] for options in calls] == ["x"] * 4


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_spells_the_file_in_three_ways(name: str) -> None:
    """A command with ``-c`` has ``--config`` and the Go Paraglider's ``-config`` too."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    spellings = [set(each.opts) for each in command.params if "-c" in each.opts]
    assert all(each == {"-c", "--config", "-config"} for each in spellings)
