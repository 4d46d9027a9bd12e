"""Where the configuration file and the control socket are, if nobody says otherwise.

Lives here: ``CONTROL_SOCKET``, ``SEARCHED``, ``find_config``.
Rules: the standard library alone: commands that run each second, such as `paraglider health`, start
without the model of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from paraglider.errors import OperatorError

#: the default of `control: socket`
CONTROL_SOCKET: Final = "/run/paraglider/control.sock"

SEARCHED = (
    Path("paraglider.conf"),
    Path("/etc/paraglider/paraglider.conf"),
    Path("/etc/paraglider/glider.yaml"),  # the Go Paraglider's
)


def find_config(path: str | None = None, searched: tuple[Path, ...] = SEARCHED) -> Path:
    """The file to read: ``path`` if given, else the first of ``searched`` that exists.

    Raises ``OperatorError`` if there is none.
    """
    if path is not None:
        return Path(path)
    for candidate in searched:
        if candidate.exists():
            return candidate
    *others, last = map(_in_full, searched)
    places = " or ".join([", ".join(others), last] if others else [last])
    raise OperatorError(f"there is no {places}", "name the configuration file with -c FILE")


def _in_full(path: Path) -> str:
    return str(path) if path.is_absolute() else f"./{path}"
