"""Targets under atheris: ``python tests/fuzz/run.py TARGET[,TARGET…] [libFuzzer's option]…``.

Each is a child of this process, which imports and instruments the code once; ``{}`` in an option is
the target's name. Exit code 1 when one of them has found something, after all of them. Only byte
code is instrumented, so all of it is to be interpreted (PARAGLIDER_PURE=1).
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import FunctionType

import atheris

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS


def main() -> None:
    """See the head of the file."""
    # Not by atheris' hook of imports: paraglider has a finder of its own for interpreted modules.
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith("paraglider"):
            atheris.instrument_func(function)
    program, names, *options = sys.argv
    ends = [
        _fuzz(program, name, [option.replace("{}", name) for option in options])
        for name in names.split(",")
    ]
    sys.exit(any(ends))


def _fuzz(program: str, name: str, options: list[str]) -> int:
    """Fuzz the target ``name`` until libFuzzer ends the process that does; how that ended."""
    child = os.fork()
    if child == 0:
        os.write(1, f"target {name}\n".encode())
        atheris.Setup([program, *options], TARGETS[name])
        atheris.Fuzz()  # does not return
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    main()
