"""The files that a foreign configuration includes.

Lives here: ``Includes``, which finds and reads them, and ``IncludedFile``.
Rules: the number of files and their size together are bounded, and a file is never read within
itself, so that every import ends. Only regular files are read. Without a name of the main file
(standard input) there is no folder to look in, and nothing is read.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

from paraglider.config import reader, source
from paraglider.config.diagnostics import ConfigError
from paraglider.config.wording import shown

#: most files that are read, how deep they may include each other, and folders with a wildcard
MOST: Final = 200
_DEEPEST: Final = 10
_WILD: Final = 2
_COPY: Final = "put the included files where the file names them, and import again"


class MissingIncludeError(ValueError):
    """An included file is not there; the message is "what; remedy"."""


@dataclass(frozen=True, slots=True)
class IncludedFile:
    """The text of an included file, and its name in messages."""

    name: str
    text: str


class Includes:
    """Reads the files that ``file`` and its includes name; ``file`` is None for standard input."""

    def __init__(self, file: str | None = None) -> None:
        self._file = file
        self._read = 0
        self._characters = 0

    def find(self, pattern: str, within: tuple[str, ...], *, beside: bool) -> list[IncludedFile]:
        """The files that ``pattern`` names, in the order of their names.

        ``within`` has the names of the files that lead here, without the main file. A relative
        pattern is looked up in the folder of the last of these if ``beside``, else in that of the
        main file. Raises ``MissingIncludeError`` if there is none, ``ValueError`` ("what; remedy")
        if one cannot be read.
        """
        if self._file is None:
            what = f"the file {shown(pattern)} is included, and standard input has no folder"
            raise MissingIncludeError(f"{what}; name the file to import in place of `-`")
        if not pattern.isprintable() or sum(map(glob.has_magic, pattern.split("/"))) > _WILD:
            raise ValueError(f"{shown(pattern)} is no name of files; write them one by one")
        if len(within) >= _DEEPEST:
            remedy = "remove the include that leads back"
            raise ValueError(f"files include each other more than {_DEEPEST} deep; {remedy}")
        base = FilePath(within[-1] if beside and within else self._file).parent
        wanted = str(base / pattern)
        wild = glob.has_magic(pattern)
        names = sorted(glob.glob(wanted)) if wild else [wanted]  # noqa: PTH207 - may be absolute
        if not names:
            raise MissingIncludeError(f"no file is called {shown(pattern)}; {_COPY}")
        return [self._one(name, within) for name in names]

    def _one(self, name: str, within: tuple[str, ...]) -> IncludedFile:
        if os.path.realpath(name) in map(os.path.realpath, (self._file or "", *within)):
            raise ValueError(f"{shown(name)} includes itself; remove the include that leads back")
        if not FilePath(name).exists():
            raise MissingIncludeError(f"no file is called {shown(name)}; {_COPY}")
        self._read += 1
        if self._read > MOST:
            raise ValueError(f"more than {MOST} files are included; import them one by one")
        try:
            text = source.read(name, _COPY)
        except ConfigError as error:
            raise ValueError(error.lines[0]) from None
        self._characters += len(text)
        if self._characters > reader.MAX_BYTES:
            limit = reader.MAX_BYTES // 1_000_000
            what = f"the included files are larger than {limit} MB"
            raise ValueError(f"{what}; import them one by one")
        return IncludedFile(name, text)
