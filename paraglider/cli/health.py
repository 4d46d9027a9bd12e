"""`paraglider health`: is all well? With `--exit-code` for keepalived's track_script.

Lives here: the click command ``health``.
Rules: well is when every service has a backend for new flows and every process serves.
"""

from __future__ import annotations

import click

from paraglider.cli.asking import control_of, json_option, print_json
from paraglider.cli.errors import EXIT_MISTAKE
from paraglider.cli.main import Options, config_option


@click.command()
@click.option("--exit-code", is_flag=True, help="Exit 1 when something is wrong.")
@config_option
@json_option
@click.pass_context
def health(ctx: click.Context, exit_code: bool, config: str | None, as_json: bool) -> None:
    """Say whether every service has a ready backend and all processes serve."""
    options: Options = ctx.obj
    answer = control_of(options, config).get("health")
    if as_json:
        print_json(answer)
    else:
        print("healthy" if answer["healthy"] else "\n".join(answer["problems"]))
    if exit_code and not answer["healthy"]:
        ctx.exit(EXIT_MISTAKE)
