"""Selects the compiled or the interpreted form of the hot modules: all of them, or none.

``setup.py`` compiles them with Cython if there is a compiler; the ``.py`` file is the source of
both.
Rules: the interpreted modules are used if PARAGLIDER_PURE is set in the environment, or if a source
is newer than its compiled module (an edit in a checkout). Compiled modules use each other's memory
layout, so they cannot be mixed with interpreted ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PURE = "PARAGLIDER_PURE"

#: tolerance in seconds for files of one installation
_TOLERANCE = 5.0


class InterpretedFinder:
    """Finds the package's modules by their source files only."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of ``name`` from its ``.py``; None for packages and for other projects' modules.

        Raises ModuleNotFoundError for a module of this package that exists only compiled.
        """
        if not name.startswith("paraglider."):
            return None
        leaf = name.rpartition(".")[2]
        for folder in path or ():
            if Path(folder, leaf).is_dir():
                return None
            source = Path(folder, f"{leaf}.py")
            if source.exists():
                return spec_from_file_location(name, source)
        raise ModuleNotFoundError(f"{name} exists only compiled, or not at all", name=name)


def compiled_files(package: Path) -> list[Path]:
    """The compiled modules below ``package`` that this interpreter would load."""
    suffix = EXTENSION_SUFFIXES[0]
    return sorted(package.rglob(f"*{suffix}"))


def stale(package: Path) -> list[Path]:
    """The sources below ``package`` that are newer than their compiled modules."""
    found = []
    for compiled in compiled_files(package):
        stem = compiled.name.removesuffix(EXTENSION_SUFFIXES[0])
        for ending in (".py", ".pyx", ".pxd"):
            source = compiled.with_name(stem + ending)
            newer = source.exists() and (
                source.stat().st_mtime > compiled.stat().st_mtime + _TOLERANCE
            )
            if newer:
                found.append(source)
    return found


def build_of(module: ModuleType) -> str:
    """Whether ``module`` is "compiled" or "interpreted"."""
    file = module.__file__ or ""
    return "compiled" if file.endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"


def choose(package: Path) -> None:
    """Select the interpreted modules if the rules above say so."""
    if os.environ.get(PURE) or stale(package):
        sys.meta_path.insert(0, InterpretedFinder)
