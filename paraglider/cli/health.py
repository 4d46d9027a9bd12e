"""`paraglider health`: the daemon's health. With `--exit-code` for keepalived's track_script.

Lives here: the click command ``health``.
Rules: the first line is healthy, degraded or unhealthy, followed by one line per condition.
"""

from __future__ import annotations

import click

from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.errors import EXIT_MISTAKE
from paraglider.cli.main import Options, config_option


@click.command()
@click.option("--exit-code", is_flag=True, help="Exit with 1 when unhealthy, else with 0.")
@config_option
@json_option
@click.pass_context
def health(ctx: click.Context, exit_code: bool, config: str | None, as_json: bool) -> None:
    """Print healthy, degraded or unhealthy, and each problem with its remedy."""
    options: Options = ctx.obj
    answer = control_client(options, config).get("health")
    if as_json:
        print_json(answer)
    else:
        print("\n".join([answer["status"], *answer["problems"]]))
    if exit_code and answer["status"] == "unhealthy":
        ctx.exit(EXIT_MISTAKE)
