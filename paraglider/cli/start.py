"""`paraglider start`: has the kernel balance by itself, without a daemon.

Lives here: the click command ``start``.
Rules: every check comes before the first change; run again it moves to what the file says by
now, and established connections go on.
"""

from __future__ import annotations

import sys

import click

from paraglider.cli.main import Options, config_option
from paraglider.cli.steps import carry_out
from paraglider.config.advice import warnings
from paraglider.config.load import find_config, load_with_marks
from paraglider.config.static import cautions, unserved
from paraglider.config.validate import check_interfaces
from paraglider.rules.static import rounded
from paraglider.system.changes.base import Host
from paraglider.system.checks import check_root
from paraglider.system.owner import STARTED, refuse_beside_daemon
from paraglider.system.setup import prepare_start


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print the commands; change nothing.")
@click.pass_obj
def start(options: Options, config: str | None, dry_run: bool) -> None:
    """Balance by the kernel alone: rules, sysctls, addresses; no daemon.

    Again with a changed file: new connections go by that, established ones stay where they are.
    """
    loaded = load_with_marks(find_config(config if config is not None else options.config))
    loaded.refuse(unserved(loaded.config))
    loaded.refuse(check_interfaces(loaded.config, set(Host().netlink.interfaces())))
    loaded.for_families(options.families)
    notes = [*warnings(loaded.config), *cautions(loaded.config), *rounded(loaded.config)]
    for line in loaded.lines(notes):
        print(f"warning: {line}", file=sys.stderr)
    check_root("paraglider start")
    refuse_beside_daemon()
    carry_out(prepare_start, loaded.config, options.families, STARTED, dry_run)
