"""`paraglider health`: the health of the daemon, of this balancer alone, or of a VIP. With
`--exit-code` for programs that announce VIPs: ExaBGP's healthcheck, keepalived's vrrp_script.

Lives here: the click command ``health``.
Rules: the first line is healthy, degraded, draining or unhealthy, followed by one line per
condition, and one if the balancer is drained.
"""

from __future__ import annotations

import click

from paraglider.cli.choices import Choice
from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.errors import EXIT_MISTAKE
from paraglider.cli.main import Options, config_option


@click.command()
@click.option("--vip", metavar="ADDRESS", help="Of one VIP: other VIPs' backends do not count.")
@click.option("--node", is_flag=True, help="Of this balancer alone: backends do not count.")
@click.option(
    "--when",
    type=Choice(["any", "all"]),
    help="How many services of the VIP need a ready backend. Default: any.",
)
@click.option(
    "--exit-code", is_flag=True, help="Exit with 1 when unhealthy or draining, else with 0."
)
@config_option
@json_option
@click.pass_context
def health(
    ctx: click.Context,
    vip: str | None,
    node: bool,
    when: str | None,
    exit_code: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Print healthy, degraded, draining or unhealthy, and each problem with its remedy.

    Announce a VIP, by BGP or VRRP, only while the exit code of --exit-code is 0.
    """
    if vip is not None and node:
        raise click.UsageError("give --vip or --node, not both")
    if when is not None and vip is None:
        raise click.UsageError("--when is for --vip")
    options: Options = ctx.obj
    of = "node" if node else None
    answer = control_client(options, config).get("health", vip=vip, of=of, when=when)
    if as_json:
        print_json(answer)
    else:
        print("\n".join([answer["status"], *answer["problems"]]))
        if answer["draining"]:
            print(
                "this balancer is drained, not to be announced; `paraglider node ready` ends that"
            )
    if exit_code and not answer["announce"]:
        ctx.exit(EXIT_MISTAKE)
