"""A parameter of a strategy or a probe, as its class declares it.

Lives here: ``Parameter``; ``one_of``, the check of a choice; and ``found_in``, which imports the
modules of a package for the classes that they define.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """A whole number or a text that the configuration may give; ``default`` has its type.

    ``minimum`` and ``maximum`` bound a number, or the length of a text. ``check`` returns why a
    value within the bounds is wrong and what would be right, separated by "; ", or an empty text.
    """

    name: str
    default: int | str
    minimum: int
    maximum: int
    help: str
    check: Callable[[int | str], str] = lambda _: ""

    def error(self, value: object) -> str:
        """Why ``value`` is wrong and what would be right, separated by "; "; else empty."""
        if isinstance(self.default, str):
            if not isinstance(value, str):
                return f"{value!r} is no text; put it in quotes"
            if not self.minimum <= len(value) <= self.maximum:
                return f"the text has {len(value)} characters; write {self._bounds()} characters"
            return self.check(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return f"{value!r} is no whole number; write a whole number {self._bounds()}"
        if not self.minimum <= value <= self.maximum:
            return f"{value} is out of range; write a whole number {self._bounds()}"
        return self.check(value)

    def _bounds(self) -> str:
        return f"from {self.minimum} to {self.maximum}"


def one_of(*names: str) -> Callable[[int | str], str]:
    """The ``check`` of a parameter whose value is one of ``names``."""
    return lambda value: (
        "" if value in names else f"{value!r} is none of them; write one of: {', '.join(names)}"
    )


def found_in(package: str, path: Iterable[str], base: type[Any]) -> Iterator[type[Any]]:
    """The subclasses of ``base`` that the modules of ``package`` (in the folders ``path``) define,
    except private ones; sorted by module.
    """
    for found in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        module = importlib.import_module(f"{package}.{found.name}")
        for name, value in vars(module).items():
            if (
                not name.startswith("_")
                and isinstance(value, type)
                and value.__module__ == module.__name__
                and issubclass(value, base)
                and value is not base
            ):
                yield value
