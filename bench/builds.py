"""Builds: the core's hot modules compiled, or the same source interpreted.

Rules: a separate process determines which build is in use, so a row always names the build that was
measured.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES

from paraglider.lab.namespace import execute

COMPILED = "compiled"
INTERPRETED = "interpreted"
BUILDS = (COMPILED, INTERPRETED)

#: the environment variables of each build
ENVIRONMENT = {COMPILED: "PARAGLIDER_PURE=", INTERPRETED: "PARAGLIDER_PURE=1"}

_ASK = "import paraglider.forward.nat.datapath as m; print(m.__file__)"


def command(build: str, *arguments: str) -> list[str]:
    """``python`` with ``arguments`` and the modules of ``build``; it keeps its process id."""
    return ["env", ENVIRONMENT[build], sys.executable, *arguments]


def missing(build: str) -> str | None:
    """Why ``build`` is not available here; None if it is."""
    file = execute(command(build, "-c", _ASK)).stdout.strip()
    found = of_file(file)
    if found == build:
        return None
    if build == COMPILED:
        return "the compiled modules are not built"
    return "PARAGLIDER_PURE=1 does not give the interpreted modules"


def of_file(file: str) -> str:
    """The build of a module loaded from ``file``."""
    return COMPILED if file.endswith(tuple(EXTENSION_SUFFIXES)) else INTERPRETED
