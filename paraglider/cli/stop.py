"""`paraglider stop`: takes back what `paraglider start` did.

Lives here: the click command ``stop``.
Rules: what was started is in the state, so the file is not read; a host on which nothing was
started is no error, and what `paraglider.config` set up stays.
"""

from __future__ import annotations

import click

from paraglider.cli.main import Options, config_accepted
from paraglider.cli.steps import take_back
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
        print("nothing is started; `paraglider.config --undo` takes back what it set up")
        return
    take_back(options.families, STARTED, dry_run, "nothing is started")
