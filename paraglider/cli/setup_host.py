"""`paraglider.config`: sets this host up for balancing, and takes it back with `--undo`.

Lives here: the click command ``setup_host`` and ``entry``, which `scripts/paraglider.config` calls.
Rules: every check comes before the first change. One line a step on stdout, warnings on stderr;
with `--dry-run` stdout is a script of the commands that the run amounts to.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from typing import NoReturn

import click

from paraglider import __version__
from paraglider.cli.errors import run_command
from paraglider.cli.main import families
from paraglider.config.advice import warnings
from paraglider.config.load import LoadedConfig, find_config, load_with_marks
from paraglider.config.support import unsupported
from paraglider.config.validate import check_interfaces
from paraglider.errors import OperatorError
from paraglider.system import setup
from paraglider.system.changes.base import Host
from paraglider.system.checks import check_root
from paraglider.system.state import StateFile, only_one

PROG = "paraglider.config"
_TERMINATED = 128 + signal.SIGTERM  # the exit code that shells give for it


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="Configuration file; else ./paraglider.conf, then /etc/paraglider/paraglider.conf.",
)
@click.option("-4", "four", is_flag=True, help="Only the IPv4 services.")
@click.option("-6", "six", is_flag=True, help="Only the IPv6 services.")
@click.option("--dry-run", is_flag=True, help="Print the commands; change nothing.")
@click.option("--undo", is_flag=True, help="Take back what earlier runs did; needs no file.")
@click.version_option(__version__, prog_name=PROG, message="%(prog)s %(version)s")
def setup_host(config: str | None, four: bool, six: bool, dry_run: bool, undo: bool) -> None:
    """Set this host up for balancing: rules, sysctls, addresses, neighbours.

    Running it again changes nothing but what has changed in the file.
    """
    chosen = families(four, six)
    if undo:
        check_root(PROG)
        with only_one():
            _undo(chosen, dry_run)
        return
    loaded = _loaded(config, chosen)
    check_root(PROG)
    with only_one():
        _set_up(loaded, chosen, dry_run)


def _loaded(config: str | None, chosen: frozenset[int]) -> LoadedConfig:
    loaded = load_with_marks(find_config(config))
    loaded.refuse(unsupported(loaded.config, failover=False))
    host = Host()
    loaded.refuse(check_interfaces(loaded.config, set(host.netlink.interfaces())))
    if not loaded.config.for_families(chosen).services:
        wanted = " or ".join(f"IPv{family}" for family in sorted(chosen))
        raise OperatorError(
            f"{loaded.file} has no {wanted} service", "leave -4 and -6 out, or add one"
        )
    for line in loaded.lines(warnings(loaded.config)):
        print(f"warning: {line}", file=sys.stderr)
    return loaded


def _set_up(loaded: LoadedConfig, chosen: frozenset[int], dry_run: bool) -> None:
    host, state = Host(), StateFile()
    steps = setup.prepare(loaded.config, chosen, host, state)
    if dry_run:
        print(setup.script(steps, host) or "# nothing to do: the host is set up\n", end="")
        return
    # A termination must roll back too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    told = _Teller()
    setup.set_up(steps, host, state, told)
    told.sum_up()
    for address in setup.unresolved(loaded.config, chosen, host):
        print(
            f"warning: the backend {address} does not answer for its hardware address;"
            " is it up, and on the private interface's link?",
            file=sys.stderr,
        )
    for address in setup.foreign_sources(loaded.config, chosen, host):
        print(
            f"warning: no interface here has the `snat` address {address}; do the backends'"
            " replies to it come to this host?",
            file=sys.stderr,
        )


def _undo(chosen: frozenset[int], dry_run: bool) -> None:
    host, state = Host(), StateFile()
    if dry_run:
        print(setup.undo_script(chosen, host, state) or "# nothing to undo\n", end="")
        return
    told = _Teller()
    if setup.undo(chosen, host, state, told):
        told.sum_up()
    else:
        print("nothing to undo")


class _Teller:
    """Prints the steps and counts what became of them."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def __call__(self, outcome: str, what: str) -> None:
        self._count[outcome] += 1
        print(f"{outcome:<11} {what}", flush=True)

    def sum_up(self) -> None:
        """The last line: how many steps came to what."""
        print(", ".join(f"{count} {outcome}" for outcome, count in self._count.items()))


def entry() -> NoReturn:
    """The script `paraglider.config`."""
    run_command(setup_host, PROG)


if __name__ == "__main__":
    entry()
