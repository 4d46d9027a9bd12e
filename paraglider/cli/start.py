"""`paraglider start`: balances in the kernel, without a daemon.

Lives here: the click command ``start``.
Rules: all checks come before the first change. Running it again applies the file's changes, and
established connections continue. With ``--watch`` it stays in the foreground; when it exits, the
kernel continues to balance until `paraglider stop`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import click

from paraglider.cli.main import Options, config_option
from paraglider.cli.steps import apply_steps
from paraglider.config.advice import warnings
from paraglider.config.check import check_interfaces
from paraglider.config.places import find_config
from paraglider.forward.load import load_with_marks
from paraglider.forward.static.checks import cautions, unserved
from paraglider.forward.static.rules import rounded
from paraglider.host.apply import prepare_start
from paraglider.host.changes.base import Host
from paraglider.host.checks import check_root
from paraglider.host.own_addresses import with_own_addresses
from paraglider.host.ownership import STARTED, refuse_beside_daemon


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print the commands; change nothing.")
@click.option(
    "--watch",
    is_flag=True,
    help="Stay in the foreground, and restore what others remove, until SIGTERM or Ctrl-C.",
)
@click.pass_obj
def start(options: Options, config: str | None, dry_run: bool, watch: bool) -> None:
    """Let the kernel balance: install rules, sysctls and addresses; no daemon runs.

    Run it again with a changed file: new connections use it, established ones keep their backends.
    """
    loaded = load_with_marks(find_config(config if config is not None else options.config))
    loaded.refuse(unserved(loaded.config))
    loaded.refuse(check_interfaces(loaded.config, set(Host().netlink.interfaces())))
    loaded.for_families(options.families)
    loaded, taken = with_own_addresses(loaded, options.families)
    notes = [*warnings(loaded.config), *cautions(loaded.config), *rounded(loaded.config)]
    for line in (*taken, *loaded.lines(notes)):
        print(f"warning: {line}", file=sys.stderr)
    check_root("paraglider start")
    refuse_beside_daemon()
    set_up = partial(apply_steps, prepare_start, loaded.config, options.families, STARTED, dry_run)
    if watch and not dry_run:
        _keep(set_up, options)
    else:
        set_up()


def _keep(set_up: Callable[[], None], options: Options) -> None:
    """Set the host up and keep it so; imports its modules before privileges are dropped."""
    from paraglider.daemon import log
    from paraglider.daemon.processes.notify import Notifier
    from paraglider.daemon.static_watch import keep, only_keeper

    with only_keeper():
        set_up()
        sys.stdout.flush()
        log.set_up(options.debug, options.log_style)
        keep(Notifier())
