"""The Python files of a directory, read once and imported later by processes without access to
them.

Lives here: ``Snapshot``.
Rules: reading executes nothing. Modules are imported from memory, so all processes of a daemon,
also those that start later, have the same code even if the files change. No bytecode is written.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from paraglider.errors import OperatorError

#: bytes of all files together
MOST: Final = 16 << 20
_PACKAGE: Final = "__init__"


class Snapshot:
    """The modules below ``directory``; raises ``OperatorError`` when they cannot be read.

    A module finder and loader (``importlib.abc``).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, tuple[Path, bytes, bool]] = {}  # module → file, source, package
        left = MOST
        try:
            for folder, folders, names in os.walk(directory, onerror=_raise):
                folders[:] = [name for name in folders if name.isidentifier()]
                parts = Path(folder).relative_to(directory).parts
                if parts:  # a directory without __init__.py is a package too
                    self._files.setdefault(".".join(parts), (Path(folder), b"", True))
                for name in names:
                    file = Path(folder) / name
                    if file.suffix == ".py" and stat.S_ISREG(file.stat().st_mode):
                        left -= self._add(parts, file, left)
        except OSError as error:
            what = f"{error.filename} cannot be read: {error.strerror}"
            raise OperatorError(what, "correct its mode, or the symbolic link") from None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Within the context, modules are found here before ``sys.path``; modules of an earlier
        load are removed.
        """
        for name, module in list(sys.modules.items()):
            if self.has(module):
                del sys.modules[name]
        at = next(
            (n for n, one in enumerate(sys.meta_path) if one is importlib.machinery.PathFinder),
            len(sys.meta_path),
        )
        sys.meta_path.insert(at, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)

    def has(self, module: ModuleType) -> bool:
        """Whether ``module`` is from the directory."""
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        return any(Path(place).is_relative_to(self._directory) for place in places if place)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        del path, target
        if name not in self._files:
            return None
        file, _, package = self._files[name]
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(file), is_package=package)  # type: ignore[arg-type]
        if package:
            folder = file.parent if file.suffix == ".py" else file
            spec.submodule_search_locations = [str(folder)]
        spec.has_location = file.suffix == ".py"
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """See ``importlib.abc.Loader``: the default module object."""

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``."""
        __tracebackhide__ = True
        file, source, _ = self._files[module.__name__]
        exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102 - what it is for

    def _add(self, parts: tuple[str, ...], file: Path, left: int) -> int:
        """Read ``file``; returns its size in bytes."""
        with file.open("rb") as stream:
            source = stream.read(left + 1)
        if len(source) > left:
            raise OperatorError(
                f"{self._directory} has more than {MOST >> 20} MiB of Python files",
                "move the policies to a separate directory",
            )
        package = file.stem == _PACKAGE
        name = ".".join(parts if package else (*parts, file.stem))
        if name:
            self._files[name] = (file, source, package)
        return len(source)


def _raise(error: OSError) -> None:
    raise error
