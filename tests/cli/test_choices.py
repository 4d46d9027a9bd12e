"""Tests of ``paraglider.cli.choices``: what was meant, and groups without a command."""

from __future__ import annotations

import click
import pytest

from paraglider.cli.choices import Choice, CommandGroup
from paraglider.cli.errors import exit_code
from paraglider.cli.main import main


@click.group(cls=CommandGroup)
def boat() -> None:
    """A boat."""


@boat.command()
@click.option("--speed", type=Choice(["slow", "fast"]), default="slow")
def sail(speed: str) -> None:
    """Sail."""
    click.echo(f"sails {speed}")


@boat.command()
def anchor() -> None:
    """Stop."""


def outcome(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of ``boat``."""
    code = exit_code(boat, "boat", arguments)
    out, err = capfd.readouterr()
    return code, out, err


def test_what_is_right(capfd: pytest.CaptureFixture[str]) -> None:
    """Runs; the default is one of the words."""
    assert outcome(capfd, "sail") == (0, "sails slow\n", "")
    assert outcome(capfd, "sail", "--speed", "fast") == (0, "sails fast\n", "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("sial",), "boat: No such command 'sial'. Did you mean 'sail'?; see `boat --help`\n"),
        (("zzz",), "boat: No such command 'zzz'; see `boat --help`\n"),
        (("--sail",), "boat: No such option '--sail'; see `boat --help`\n"),
        (
            ("sail", "--speed", "fas"),
            (
                "boat: Invalid value for '--speed': 'fas' is not one of 'slow', 'fast'."
                " Did you mean 'fast'?; see `boat sail --help`\n"
            ),
        ),
        (
            ("sail", "--speed", "zzz"),
            (
                "boat: Invalid value for '--speed': 'zzz' is not one of 'slow', 'fast';"
                " see `boat sail --help`\n"
            ),
        ),
    ],
)
def test_what_is_nearly_right(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str
) -> None:
    """One line with the nearest word, if one is near."""
    assert outcome(capfd, *arguments) == (1, "", error)


@pytest.mark.parametrize("name", ["set", "node", "fleet"])
def test_groups_of_paraglider_alone(capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Each prints its help, and not within an error message."""
    assert exit_code(main, "paraglider", [name]) == 1
    assert capfd.readouterr().err.startswith(f"Usage: paraglider {name} [OPTIONS] COMMAND")


def test_a_group_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Its help, whole, on stderr; the exit code says that nothing was done."""
    code, out, err = outcome(capfd)
    assert (code, out) == (1, "")
    assert err.startswith("Usage: boat [OPTIONS] COMMAND")
    assert err.endswith("  sail    Sail.\n")
