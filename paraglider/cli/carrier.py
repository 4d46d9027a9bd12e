"""`paraglider carrier`: shows what carries flows, BPF or the workers, and switches it.

Lives here: the click group ``carrier``, with ``on`` and ``off``.
Rules: sends the request to the control socket and prints the answer.
"""

from __future__ import annotations

from typing import Any

import click

from paraglider.cli import tables
from paraglider.cli.choices import CommandGroup
from paraglider.cli.common_options import control_client, json_option, print_json, print_table
from paraglider.cli.main import Options, config_option

#: the options before `on` and `off`: those before `carrier`, the file, and `--json`
Before = tuple[Options, str | None, bool]


@click.group(cls=CommandGroup, invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def carrier(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Print what forwards the packets of decided flows, BPF or the workers, and why BPF left some
    packets to the workers.

    With `carrier off` the workers carry all flows, and no flow ends; with `carrier on` BPF carries
    them again. The daemon always starts with `on`.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = (ctx.obj, config, as_json)
        return
    _print(control_client(ctx.obj, config).get("carrier"), as_json=as_json)


@carrier.command(short_help="BPF carries flows.")
@config_option
@json_option
@click.pass_obj
def on(before: Before, config: str | None, as_json: bool) -> None:
    """Attach the BPF program, which then carries the flows of all services without
    `carrier: worker`.
    """
    _switch("on", before, config, as_json)


@carrier.command(short_help="The workers carry all flows.")
@config_option
@json_option
@click.pass_obj
def off(before: Before, config: str | None, as_json: bool) -> None:
    """Detach the BPF program: the workers carry all flows, and no flow ends."""
    _switch("off", before, config, as_json)


def _switch(state: str, before: Before, config: str | None, as_json: bool) -> None:
    options, file, json_before = before
    control = control_client(options, config or file)
    _print(control.post("carrier", {"state": state}), as_json=as_json or json_before)


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for line in tables.carrier(answer):
        print(line)
    if any(answer["packets"].values()):
        print_table(tables.carrier_packets(answer["packets"]))
