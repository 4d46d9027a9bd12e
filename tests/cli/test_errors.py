"""Tests of ``paraglider.cli.errors``: one message and one exit code for any error."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from paraglider.cli.errors import run_command
from paraglider.config.diagnostics import ConfigError
from paraglider.errors import OperatorError, PlatformError


def outcome(command: click.Command, *arguments: str) -> int:
    """The exit code that ``command`` ends the process with."""
    with pytest.raises(SystemExit) as caught:
        run_command(command, "prog", arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raising(error: BaseException) -> click.Command:
    """A command that fails with ``error``."""

    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OperatorError("no root", "use sudo"), 1, "prog: no root; use sudo\n"),
        (PlatformError("no NFQUEUE"), 2, "prog: no NFQUEUE\n"),
        (ConfigError(["f:1:1: a; b", "f:2:1: c; d"]), 1, "f:1:1: a; b\nf:2:1: c; d\n"),
        (click.ClickException("It broke."), 1, "prog: It broke\n"),
    ],
)
def test_errors_become_a_message_and_a_code(
    capfd: pytest.CaptureFixture[str], error: Exception, code: int, message: str
) -> None:
    """Operators' errors are on stderr, without a traceback."""
    assert outcome(raising(error)) == code
    assert capfd.readouterr().err == message


def test_interrupt_exits_130(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is no error and shows none."""
    assert outcome(raising(KeyboardInterrupt())) == 130
    assert capfd.readouterr().err.strip() == ""


def test_a_mistake_of_ours_is_not_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    """An unexpected exception has a traceback, and an exit code after which the service manager
    restarts the daemon.
    """
    assert outcome(raising(ZeroDivisionError())) == 70
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert "ZeroDivisionError" in error


def test_wrong_usage_is_the_operators_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong option exits with 1, not click's 2, and the message names --help."""
    assert outcome(raising(AssertionError()), "--nonsense") == 1
    assert capfd.readouterr().err == "prog: No such option '--nonsense'; see `prog --help`\n"


def test_success_and_chosen_codes() -> None:
    """A command that returns is done; one that exits with a code has that code."""

    @click.command()
    @click.pass_context
    def chosen(ctx: click.Context) -> None:
        ctx.exit(7)

    assert outcome(click.Command("quiet", callback=lambda: "a value")) == 0
    assert outcome(chosen) == 7


def test_help_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    """--help prints and exits 0."""
    assert outcome(raising(AssertionError()), "--help") == 0
    assert "Usage: prog" in capfd.readouterr().out


def test_reader_that_goes_away_leaves_no_noise() -> None:
    """`paraglider ... | head` ends without a traceback or a word of the interpreter."""
    program = (
        "import click\n"
        "from paraglider.cli.errors import run_command\n"
        "run_command(click.Command('x', callback=lambda: print('line')), 'x', [])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    noise = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), noise) == (1, b"")


def redirected(where: str) -> subprocess.CompletedProcess[bytes]:
    """A command that prints and works, its output redirected as a shell does it."""
    program = (
        "import click, os, sys\n"
        "from paraglider.cli.errors import run_command\n"
        "def work():\n"
        "    print('line' * 10000, flush=True)\n"
        "    print('warning', file=sys.stderr)\n"
        "    os.write(int(sys.argv[1]), b'done')\n"
        "run_command(click.Command('x', callback=work), 'prog', [])\n"
    )
    reading, writing = os.pipe()
    command = ["sh", "-c", f'exec "$@" {where}', "sh", sys.executable, "-c", program, str(writing)]
    done = subprocess.run(command, capture_output=True, pass_fds=(writing,))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"done"
    return done


def test_a_full_disk_is_an_error_after_the_work() -> None:
    """The command completes its work although its output cannot be written."""
    done = redirected(">/dev/full")
    words = b"prog: cannot write the output: No space left on device"
    assert (done.returncode, done.stderr.splitlines()) == (2, [b"warning", words])
    assert redirected(">/dev/full 2>&1").returncode == 2
    assert redirected("2>/dev/full").returncode == 2


def test_a_closed_output_is_no_error() -> None:
    """A closed output is no error."""
    for where in (">&-", "2>&-", "<&- >&- 2>&-"):
        assert redirected(where).returncode == 0
