"""`paraglider.config`: sets this host up for balancing; `--undo` undoes it.

Lives here: the click command ``setup_host`` and ``entry``, which `scripts/paraglider.config` calls.
Rules: all checks come before the first change.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from paraglider import __version__
from paraglider.cli.errors import run_command
from paraglider.cli.main import config_option, families
from paraglider.cli.steps import apply_steps, undo_steps
from paraglider.config.advice import warnings
from paraglider.config.check import check_interfaces
from paraglider.config.model import Config
from paraglider.config.places import find_config
from paraglider.config.sources import read_files
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.startup_sources import dns_names_in, gathered
from paraglider.daemon.messages import DnsFailure, DnsUpdate
from paraglider.errors import OperatorError
from paraglider.forward.load import load_with_marks
from paraglider.host.apply import prepare
from paraglider.host.changes.base import Host
from paraglider.host.checks import check_chroot, check_root, check_user
from paraglider.host.dns_cache import DnsCacheFile
from paraglider.host.own_addresses import with_own_addresses
from paraglider.host.ownership import SET_UP

PROG = "paraglider.config"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.option("-4", "four", is_flag=True, help="Only the IPv4 services.")
@click.option("-6", "six", is_flag=True, help="Only the IPv6 services.")
@click.option("--dry-run", is_flag=True, help="Print the commands; change nothing.")
@click.option(
    "--leave-mistakes",
    is_flag=True,
    help="If the file has mistakes, change nothing and exit with 0: the daemon reports them.",
)
@click.option("--undo", is_flag=True, help="Undo earlier runs; needs no file.")
@click.version_option(__version__, prog_name=PROG, message="%(prog)s %(version)s")
def setup_host(
    config: str | None, four: bool, six: bool, dry_run: bool, leave_mistakes: bool, undo: bool
) -> None:
    """Set up this host for balancing: rules, sysctls, addresses, neighbours.

    A further run applies only what has changed in the file.
    """
    wanted = families(four, six)
    if undo:
        check_root(PROG)
        undo_steps(wanted, SET_UP, dry_run, "nothing to undo")
        return
    try:
        loaded = load_with_marks(find_config(config))
    except OperatorError as error:
        if not leave_mistakes:
            raise
        _warn(f"the host is not changed: {error}")
        return
    loaded.refuse(check_interfaces(loaded.config, set(Host().netlink.interfaces())))
    loaded.for_families(wanted)
    loaded, notes = with_own_addresses(loaded, wanted)
    for line in (*notes, *loaded.lines(warnings(loaded.config))):
        print(f"warning: {line}", file=sys.stderr)
    listed = read_files(loaded)
    check_root(PROG)
    answers = _dns_answers(loaded.config)
    found = gathered(loaded.config, listed, answers, _warn, DnsCache(DnsCacheFile()))
    apply_steps(prepare, found, wanted, SET_UP, dry_run)


def _dns_answers(config: Config) -> list[DnsUpdate | DnsFailure]:
    """The DNS answers for the names in ``config``.

    The DNS library is imported only if there are names, because it is the largest import.
    """
    user, names = check_user(config.user), dns_names_in(config)
    if not names:
        return []
    from paraglider.daemon.monitor.dns_lookup import resolve_once

    check_chroot(config.chroot)
    return resolve_once(names, user, config.chroot)


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def entry() -> NoReturn:
    """The script `paraglider.config`."""
    run_command(setup_host, PROG)


if __name__ == "__main__":
    entry()
