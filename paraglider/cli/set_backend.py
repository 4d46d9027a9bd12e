"""`paraglider set backend SERVICE/BACKEND state ready|drain|maint` and `… weight N`, where `*` as
SERVICE is all services.

Lives here: the click group ``set_``, with ``backend``.
Rules: sends the request to the control socket and prints the answer.
"""

from __future__ import annotations

import click

from paraglider.cli.choices import Choice, CommandGroup
from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.main import Options, config_option
from paraglider.errors import OperatorError


@click.group(name="set", cls=CommandGroup)
def set_() -> None:
    """Change a backend of the running daemon."""


@set_.command()
@click.argument("which", metavar="SERVICE/BACKEND")
@click.argument("field", type=Choice(["state", "weight"]))
@click.argument("value")
@config_option
@json_option
@click.pass_obj
def backend(
    options: Options, which: str, field: str, value: str, config: str | None, as_json: bool
) -> None:
    """Set the state (ready, drain, maint) or the weight of a backend.

    BACKEND is its address, or ADDRESS:PORT if its port is mapped, as `show` prints it. drain: it
    keeps its flows and gets no new ones. maint: the same, and health checks are ignored.
    '*/BACKEND' is that backend in every service, an address alone all of its ports.
    """
    service, slash, name = which.partition("/")
    if not slash or not name:
        raise OperatorError(f"{which!r} is not SERVICE/BACKEND", "for example web/10.0.0.1")
    change: int | str = value
    if field == "weight":
        if not value.isdecimal():
            raise OperatorError(f"weight {value!r} is not a number", "give 0 or more")
        change = int(value)
    answer = control_client(options, config).set_backend(service, name, **{field: change})
    if as_json:
        print_json(answer)
        return
    for row in answer.get("backends", [answer]):
        place = f"{row['service']}/{row['backend']}"
        print(f"{place}: state {row['state']}, weight {row['weight']}")
