"""`paraglider stop`: undoes `paraglider start`.

Lives here: the click command ``stop``.
Rules: undoes the changes in the state; the file is not read. A host without `paraglider start` is
not an error, and the set-up of `paraglider.config` is not touched.
"""

from __future__ import annotations

import click

from paraglider.cli.main import Options, config_accepted
from paraglider.cli.steps import undo_steps
from paraglider.host.checks import check_root
from paraglider.host.ownership import SET_UP, STARTED, owner_of, state_path


@click.command()
@config_accepted
@click.option("--dry-run", is_flag=True, help="Print the commands; change nothing.")
@click.pass_obj
def stop(options: Options, dry_run: bool) -> None:
    """Stop the kernel's balancing and restore this host; needs no file."""
    check_root("paraglider stop")
    if owner_of(state_path()) == SET_UP:
        print("nothing is started; `paraglider.config --undo` undoes the daemon's set-up")
        return
    undo_steps(options.families, STARTED, dry_run, "nothing is started")
