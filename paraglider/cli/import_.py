"""``paraglider import``: converts another balancer's configuration, to standard output.

Rules: reads one file and what it includes, changes nothing, needs no root. Settings without a
counterpart are warnings on stderr and comments in the output. A mistake is an error with its
position in the file, and there is no output.
"""

from __future__ import annotations

import sys

import click

from paraglider.config import source
from paraglider.config.diagnostics import report
from paraglider.config.importers import convey
from paraglider.config.importers.formats import FORMATS, draft_of
from paraglider.config.importers.includes import Includes
from paraglider.config.importers.render import render
from paraglider.forward.load import accepted


@click.command("import")
@click.argument("file")
@click.option(
    "--from",
    "name",
    type=click.Choice(list(FORMATS)),
    help="Format of FILE. Default: detected by its content.",
)
@click.option(
    "--mode",
    type=click.Choice(convey.MODES),
    help="With a file of Convey: the mode, as on its command line.",
)
def import_(file: str, name: str | None, mode: convey.Mode | None) -> None:
    """Convert FILE (`-`: standard input) to a commented paraglider.conf.

    Reads a loaded.config, the Go Paraglider's glider.yaml, a Convey .toml, keepalived.conf,
    haproxy.cfg (`mode tcp`), nginx.conf (`stream`), and what `ipvsadm-save -n`, `ipvsadm -L -n` and
    `iptables-save` print or scripts of these commands have.
    """
    if file == "-":
        file, text = "standard input", source.read_from(sys.stdin.buffer, "standard input")
        includes = Includes()
    else:
        text = source.read(file, "name the file to import", pipes=True)
        includes = Includes(file)
    chosen, draft = draft_of(text, file, name, mode, includes)
    for line in report(file, draft.marks, draft.notes):
        print(f"warning: {line}", file=sys.stderr)
    accepted(draft, file)
    print(render(draft, file, chosen.title), end="")
