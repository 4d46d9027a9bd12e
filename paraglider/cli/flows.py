"""`paraglider flows`: lists flows by client, backend and service, and ends them with `kill`.

Lives here: the click group ``flows``, with ``kill``.
Rules: queries the control socket and prints; only `kill` ends flows.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from paraglider.cli import tables
from paraglider.cli.choices import CommandGroup
from paraglider.cli.common_options import control_client, json_option, print_json, print_table
from paraglider.cli.main import Options, config_option


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option("--client", metavar="ADDRESS[/PREFIX]", help="Only flows of these clients.")
@click.option("--backend", metavar="ADDRESS[:PORT]", help="Only flows to this backend.")
@click.option("--service", metavar="NAME", help="Only flows of this service.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=1000,
    help="Number of flows to list at most. Default: 1000.",
)
@config_option
@json_option
@click.pass_context
def flows(
    ctx: click.Context,
    client: str | None,
    backend: str | None,
    service: str | None,
    limit: int,
    config: str | None,
    as_json: bool,
) -> None:
    """List flows. `flows --backend A kill` ends the flows to A: their clients reconnect."""
    words = {"client": client, "backend": backend, "service": service}
    given = {name: value for name, value in words.items() if value is not None}
    if ctx.invoked_subcommand is not None:
        ctx.obj = (ctx.obj, config, given, as_json)
        return
    answer = control_client(ctx.obj, config).get("flows", limit=limit, **given)
    if as_json:
        print_json(answer)
        return
    print_table(tables.flows(answer["flows"]))
    if answer["more"]:
        print("there are more flows", file=sys.stderr)


@flows.command(short_help="End the selected flows.")
@click.option("--all", "everything", is_flag=True, help="End all flows, if no option selects any.")
@config_option
@json_option
@click.pass_obj
def kill(
    before: tuple[Options, str | None, dict[str, str], bool],
    everything: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """End the selected flows: the next packet of each client is answered with RST."""
    options, file, given, json_before = before
    body: dict[str, Any] = {**given, "all": True} if everything else given
    answer = control_client(options, config or file).post("flows/kill", body)
    if as_json or json_before:
        print_json(answer)
    else:
        count = answer["killed"]
        print(f"{count} flow{'' if count == 1 else 's'} ended")
