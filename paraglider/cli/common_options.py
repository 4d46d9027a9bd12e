"""What the commands that ask a running daemon have in common: where it is, and `--json`.

Lives here: ``control_of``, ``json_option``, ``print_json``, ``put`` and ``width``.
Rules: the socket is the one that the configuration file names, if there is a file, else the
default; the file need not be valid for that.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click
from rich.console import Console, RenderableType

from paraglider.cli.main import Options
from paraglider.daemon.http.client import DEFAULT, Control, socket_of
from paraglider.errors import OperatorError
from paraglider.forward.load import find_config

#: columns where the output is no terminal, so that nothing is cut
_WIDE = 220

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def control_of(options: Options, config: str | None = None) -> Control:
    """The daemon that the options of the command line lead to; ``config`` is the file that the
    subcommand was given.
    """
    try:
        file = find_config(config or options.config)
    except OperatorError:
        return Control(DEFAULT)
    return Control(socket_of(file))


def print_json(answer: Any) -> None:
    """One answer, readable and for programs."""
    plain = "utf" not in sys.stdout.encoding.lower()
    print(json.dumps(answer, indent=2, ensure_ascii=plain))


def put(table: RenderableType) -> None:
    """Print ``table``, uncut where nobody looks at a screen and COLUMNS does not say how wide it
    is; brackets are no markup.
    """
    Console(markup=False, highlight=False, width=width()).print(table)


def width() -> int:
    """Columns that there are to print on."""
    uncut = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _WIDE if uncut else Console().width
