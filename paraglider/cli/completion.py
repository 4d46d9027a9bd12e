"""What completes our commands in bash, zsh and fish, as click makes it.

Lives here: ``scripts``. ``python -m paraglider.cli.completion DIRECTORY`` writes them below a
`usr/share`, where Debian's shells look for them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from paraglider.cli.main import main
from paraglider.cli.setup_host import PROG, setup_host

COMMANDS: Final[dict[str, click.Command]] = {"paraglider": main, PROG: setup_host}

#: shell → where its script for a command is, below usr/share
PLACES: Final = {
    "bash": "bash-completion/completions/{command}",
    "zsh": "zsh/vendor-completions/_{command}",
    "fish": "fish/vendor_completions.d/{command}.fish",
}


def scripts() -> dict[str, str]:
    """Path below usr/share → script."""
    made = {}
    for name, command in COMMANDS.items():
        variable = f"_{name.replace('.', '_')}_COMPLETE".upper()  # as click's main() looks for it
        for shell, place in PLACES.items():
            kind = get_completion_class(shell)
            if kind is None:
                raise ValueError(f"click completes nothing in {shell}")
            # Not source(): for bash it runs the bash of here, which is not the one meant.
            completion = kind(command, {}, name, variable)
            made[place.format(command=name)] = completion.source_template % completion.source_vars()
    return made


def write(directory: Path) -> None:
    """Write every script below ``directory``."""
    for place, script in scripts().items():
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
