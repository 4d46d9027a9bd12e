"""`paraglider show`: services, backends, flows or workers with their counters.

Lives here: the click command ``show``, whose argument is a word or the name of a service.
Rules: queries the daemon's control socket, or the kernel after `paraglider start`; changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from paraglider.cli import tables
from paraglider.cli.common_options import control_client, json_option, print_json, print_table
from paraglider.cli.main import Options, config_option
from paraglider.config.wording import did_you_mean
from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError
from paraglider.host.checks import check_root
from paraglider.host.ownership import STARTED, owner_of, state_path

WORDS = ("services", "backends", "flows", "workers")


def _complete(_context: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    return [word for word in WORDS if word.startswith(begun)]


@click.command()
@click.argument(
    "what", metavar=f"[{'|'.join(WORDS)}|SERVICE]", default="backends", shell_complete=_complete
)
@config_option
@json_option
@click.pass_obj
def show(options: Options, what: str, config: str | None, as_json: bool) -> None:
    """Show services, backends (the default), flows or workers; or a service with its backends.

    Flows: active; InAct: half-open or closed. Conns: connections begun. In: from clients; out: to
    clients.
    """
    check_root("paraglider show")
    if owner_of(state_path()) == STARTED:
        from paraglider.cli.show_static import show_static, started_services

        services = started_services(options.families)
        if what not in WORDS:
            names = [service.name for service in services]
            services = [service for service in services if service.name == what]
            if not services:
                raise _no_service(what, names)
        show_static(services, as_json=as_json)
        return
    control = control_client(options, config)
    if what not in WORDS:
        _show_service(control, what, as_json=as_json)
        return
    if what in ("backends", "services") and not as_json:
        status = control.get("status")  # one snapshot, so that the sums match the rows
        if what == "services":
            print_table(tables.services(status["services"]))
        else:
            print_table(tables.balance(status["services"], status["backends"]))
        _print_notes(status["services"], status["node"])
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


def _show_service(control: ControlClient, name: str, *, as_json: bool) -> None:
    """Show the service ``name`` with its backends; raises ``OperatorError`` if there is none."""
    status = control.get("status")
    services = [row for row in status["services"] if row["service"] == name]
    if not services:
        raise _no_service(name, [row["service"] for row in status["services"]])
    backends = [row for row in status["backends"] if row["service"] == name]
    if as_json:
        print_json({**services[0], "backends": backends})
        return
    print_table(tables.balance(services, backends))
    _print_notes(services, status["node"])


def _print_notes(services: Sequence[tables.Row], node: tables.Row) -> None:
    """Print why workers decide for some of ``services``, and whether this balancer is drained."""
    for line in tables.undecided(services):
        print(line)
    if node["state"] != "ready":
        print(f"this balancer: {tables.drained(node)}")


def _no_service(name: str, names: Sequence[str]) -> OperatorError:
    remedy = did_you_mean(name, [*WORDS, *names])
    remedy += f"write {', '.join(WORDS)}, or one of the services: {', '.join(names)}"
    return OperatorError(f"there is no service called `{name}`", remedy)
