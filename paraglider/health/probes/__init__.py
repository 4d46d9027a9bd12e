"""Probes: one check of a backend. One module per probe, found in this folder.

Lives here: ``KINDS``, the class of each probe by its name.
Every module of this package is imported; a subclass of ``base.Probe`` that is defined there is a
probe under its ``name``. The configuration, the schema and the checker read its class; its name is
written nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from paraglider.core.parameter import found_in
from paraglider.health.probes.base import Probe


def _by_name() -> dict[str, type[Probe]]:
    found: dict[str, type[Probe]] = {}
    for each in found_in(__name__, __path__, Probe):
        if each.name in found:
            other = found[each.name].__module__
            raise ImportError(f"{each.__module__} and {other} have the same name")
        found[each.name] = each
    return found


#: the class of each probe by its name
KINDS: Final[Mapping[str, type[Probe]]] = _by_name()
