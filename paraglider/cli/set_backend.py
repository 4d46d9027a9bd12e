"""`paraglider set backend SERVICE/BACKEND state ready|drain|maint` and `… weight N`.

Lives here: the click group ``set_``, with ``backend``.
Rules: asks the control socket and prints what it says.
"""

from __future__ import annotations

import click

from paraglider.cli.common_options import control_of, json_option, print_json
from paraglider.cli.main import Options, config_option
from paraglider.errors import OperatorError


@click.group(name="set")
def set_() -> None:
    """Change a running daemon's backends until it is told otherwise."""


@set_.command()
@click.argument("which", metavar="SERVICE/BACKEND")
@click.argument("field", type=click.Choice(["state", "weight"]))
@click.argument("value")
@config_option
@json_option
@click.pass_obj
def backend(
    options: Options, which: str, field: str, value: str, config: str | None, as_json: bool
) -> None:
    """Set the state (ready, drain, maint) or the weight of a backend.

    BACKEND is its address, or ADDRESS:PORT where its port is mapped, as `show` has it. A drained
    backend keeps its flows and takes no new ones.
    """
    service, slash, name = which.partition("/")
    if not slash or not name:
        raise OperatorError(f"{which!r} is no SERVICE/BACKEND", "write one such as web/10.0.0.1")
    change: int | str = value
    if field == "weight":
        if not value.isdecimal():
            raise OperatorError(f"weight {value!r} is no number", "write 0 or more")
        change = int(value)
    answer = control_of(options, config).set_backend(service, name, **{field: change})
    if as_json:
        print_json(answer)
    else:
        place = f"{answer['service']}/{answer['backend']}"
        print(f"{place}: state {answer['state']}, weight {answer['weight']}")
