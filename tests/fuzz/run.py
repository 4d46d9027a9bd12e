"""One target under atheris: ``python tests/fuzz/run.py TARGET [option of libFuzzer or corpus]…``.

Only byte code is instrumented, so all of it is to be interpreted (PARAGLIDER_PURE=1).
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import FunctionType

import atheris

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    # Not by atheris' hook of imports: paraglider has a finder of its own for interpreted modules.
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith("paraglider"):
            atheris.instrument_func(function)
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
