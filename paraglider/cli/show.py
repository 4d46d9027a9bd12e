"""`paraglider show`: services, backends, flows or workers with their counters.

Lives here: the click command ``show``.
Rules: queries the daemon's control socket, or the kernel after `paraglider start`; changes nothing.
"""

from __future__ import annotations

import sys

import click

from paraglider.cli import tables
from paraglider.cli.choices import Choice
from paraglider.cli.common_options import control_client, json_option, print_json, print_table
from paraglider.cli.main import Options, config_option
from paraglider.host.checks import check_root
from paraglider.host.ownership import STARTED, owner_of, state_path


@click.command()
@click.argument(
    "what",
    type=Choice(["services", "backends", "flows", "workers"]),
    default="backends",
)
@config_option
@json_option
@click.pass_obj
def show(options: Options, what: str, config: str | None, as_json: bool) -> None:
    """Show services, backends (the default), flows or workers.

    Flows: active; InAct: half-open or closed. Conns: connections begun. In: from clients; out: to
    clients.
    """
    check_root("paraglider show")
    if owner_of(state_path()) == STARTED:
        from paraglider.cli.show_static import show_static

        show_static(options.families, as_json=as_json)
        return
    control = control_client(options, config)
    if what in ("backends", "services") and not as_json:
        status = control.get("status")  # one snapshot, so that the sums match the rows
        if what == "services":
            print_table(tables.services(status["services"]))
        else:
            print_table(tables.balance(status["services"], status["backends"]))
        for line in tables.undecided(status["services"]):
            print(line)
        if status["node"]["state"] != "ready":
            print(f"this balancer: {tables.drained(status['node'])}")
        return
    answer = control.get(what)
    if as_json:
        print_json(answer)
    elif what == "workers":
        print_table(tables.processes(answer))
    else:
        print_table(tables.flows(answer["flows"]))
        if answer["more"]:
            print("there are more flows; filter them with `paraglider flows`", file=sys.stderr)
