"""The recorded result of the carrier's self-check (``carrier_check``).

Lives here: ``Outcome``; ``store`` and ``stored``; ``RECORDS``, the files.
Rules: a record counts for the same kernel, version of Paraglider, function and object file. It is
in /run, so none outlives a boot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from paraglider import __version__
from paraglider.host.carrier_support import EARLY_PROGRAM, PROGRAM
from paraglider.host.ownership import RUN_DIRECTORY, replace_file

#: where the result of a program's check is stored
RECORDS: Final[Mapping[str, Path]] = {
    PROGRAM: RUN_DIRECTORY / "carrier-check",
    EARLY_PROGRAM: RUN_DIRECTORY / "carrier-check-xdp",
}


class Outcome(NamedTuple):
    """The error number, why BPF cannot carry, and why it cannot carry tunnels; both empty if it
    can.
    """

    number: int
    what: str
    tunnels: str

    @classmethod
    def of(cls, text: str) -> Outcome:
        """The outcome that was written as ``text``: the number and a line for each reason."""
        head, _, tunnels = text.partition("\n")
        number, _, what = head.partition(" ")
        return cls(int(number or 0), what, tunnels)


def store(image: bytes, program: str, records: Mapping[str, Path], found: Outcome) -> None:
    """Record what was found about the function ``program`` of ``image``; raises ``OSError``."""
    text = f"{_sign(image, program)} 0 {found.what}\n{found.tunnels}"
    replace_file(records[program], text)


def stored(image: bytes, program: str, records: Mapping[str, Path]) -> Outcome | None:
    """What was recorded about the same; None if nothing was."""
    try:
        sign, _, text = records[program].read_text(errors="replace").partition(" ")
    except OSError:
        return None
    return Outcome.of(text) if sign == _sign(image, program) else None


def _sign(image: bytes, program: str) -> str:
    """What an outcome depends on, in short."""
    about = f"{os.uname().release}\0{__version__}\0{program}\0".encode()
    return hashlib.sha256(about + image).hexdigest()
