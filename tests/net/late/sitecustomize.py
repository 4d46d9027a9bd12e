"""Writes every module that a process imports without full privileges into the file LATE_IMPORTS.

Imported at the start of an interpreter whose PYTHONPATH has this directory. CAP_DAC_OVERRIDE, by
which root reads the directories of others, means full privileges; without /proc the process is in a
chroot.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType

CAP_DAC_OVERRIDE = 1


def limited() -> bool:
    """Whether this process has given up rights."""
    try:
        with open("/proc/self/status", "rb") as file:  # noqa: PTH123 - imports nothing itself
            effective = next(line.split()[1] for line in file if line.startswith(b"CapEff"))
    except OSError:
        return True
    return not int(effective, 16) & 1 << CAP_DAC_OVERRIDE


class ImportRecorder:
    """Finds no module, but is called first."""

    def __init__(self, output: int) -> None:
        self._output = output

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """See ``importlib.abc.MetaPathFinder``."""
        del path, target
        if limited():
            os.write(self._output, f"{name}\n".encode())


if "LATE_IMPORTS" in os.environ:
    sys.meta_path.insert(
        0, ImportRecorder(os.open(os.environ["LATE_IMPORTS"], os.O_WRONLY | os.O_APPEND))
    )
