"""`paraglider reload`: reloads the configuration of the running daemon.

Lives here: the click command ``reload``.
Rules: the daemon reads and validates the file that it was started with.
"""

from __future__ import annotations

import click

from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.main import Options, config_option


@click.command()
@config_option
@json_option
@click.option(
    "--force", is_flag=True, help="Also change `forward` or `vip` if this ends live flows."
)
@click.pass_obj
def reload(options: Options, config: str | None, as_json: bool, force: bool) -> None:
    """Reload the configuration of the running daemon, and print what changed.

    A file with a mistake changes nothing. Established flows keep their backends. A service whose
    live flows would end is not changed, and reported, unless --force is given.
    """
    answer = control_client(options, config).reload({"force": True} if force else {})
    if as_json:
        print_json(answer)
        return
    for line in answer["changed"] or ["no changes"]:
        print(line)
    for line in answer["restart"]:
        print(f"not changed: {line}")
