"""`paraglider show`: what is balanced here, and how much of it.

Lives here: the click command ``show``.
Rules: asks the daemon's control socket, or, where `start` has the kernel balance alone, the
kernel; changes nothing.
"""

from __future__ import annotations

import sys

import click

from paraglider.cli import tables
from paraglider.cli.common_options import control_of, json_option, print_json, put
from paraglider.cli.main import Options, config_option
from paraglider.host.checks import check_root
from paraglider.host.ownership import STARTED, owner_of, state_path


@click.command()
@click.argument(
    "what",
    type=click.Choice(["services", "backends", "flows", "workers"]),
    default="backends",
)
@config_option
@json_option
@click.pass_obj
def show(options: Options, what: str, config: str | None, as_json: bool) -> None:
    """Show services, backends (the default), flows or workers.

    Conns: connections begun. In: from clients; out: to clients.
    """
    check_root("paraglider show")
    if owner_of(state_path()) == STARTED:
        from paraglider.cli.show_static import show_started

        show_started(options.families, as_json=as_json)
        return
    control = control_of(options, config)
    if what == "backends" and not as_json:
        status = control.get("status")  # at one instant, so that the sums are those of the rows
        put(tables.balance(status["services"], status["backends"]))
        return
    answer = control.get(what)
    if as_json:
        print_json(answer)
    elif what == "services":
        put(tables.services(answer))
    elif what == "workers":
        put(tables.processes(answer))
    else:
        put(tables.flows(answer["flows"]))
        if answer["more"]:
            print("there are more; narrow them with `paraglider flows`", file=sys.stderr)
