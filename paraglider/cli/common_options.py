"""Shared by the commands that talk to a running daemon: its socket, and `--json`.

Lives here: ``control_client``, ``json_option``, ``print_json``, ``print_table`` and ``width``.
Rules: the socket is the one in the configuration file, if there is a file, else the default. The
rest of the file need not be valid. `paraglider health` may run each second, so this module imports
neither the model of the file nor rich.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from paraglider.cli.main import Options
from paraglider.config.places import CONTROL_SOCKET, find_config
from paraglider.daemon.http.client import ControlClient, socket_of
from paraglider.errors import OperatorError

if TYPE_CHECKING:
    from rich.console import RenderableType

#: columns if the output is not a terminal, so that nothing is truncated
_WIDE = 220

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def control_client(options: Options, config: str | None = None) -> ControlClient:
    """The client of the daemon that the command line selects; ``config`` is the subcommand's -c."""
    try:
        file = find_config(config or options.config)
    except OperatorError:
        return ControlClient(CONTROL_SOCKET)
    return ControlClient(socket_of(file))


def print_json(answer: Any) -> None:
    """Print an answer as indented JSON."""
    plain = "utf" not in sys.stdout.encoding.lower()
    print(json.dumps(answer, indent=2, ensure_ascii=plain))


def print_table(table: RenderableType) -> None:
    """Print ``table``, in full width unless stdout is a terminal or COLUMNS is set; brackets are
    not markup.
    """
    from rich.console import Console  # not for commands that print no table

    Console(markup=False, highlight=False, width=width()).print(table)


def width() -> int:
    """The number of columns to print on."""
    from rich.console import Console

    uncut = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _WIDE if uncut else Console().width
