"""One reading of the kernel's tables and of conntrack, which the host helper makes.

Lives here: ``Reading``, and ``read``, which makes it.
Rules: ``plain`` and ``of`` carry it between processes, and ``of`` validates what comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pydantic import TypeAdapter

from paraglider.forward.openings import REFUSED, TABLE
from paraglider.netfilter.connections import Fill, fill
from paraglider.netfilter.nfnetlink import (
    CounterValue,
    carried_counters,
    named_counters,
    table_counters,
)

Named = dict[str, int] | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters by family: of the offload table (by name, and by mark), and of refused flows (by
    protocol); how full conntrack is; the error of a family that could not be read.
    """

    tables: Mapping[int, Named] = field(default_factory=dict)
    carried: Mapping[int, Mapping[int, Mapping[str, CounterValue]]] = field(default_factory=dict)
    refused: Mapping[int, Named] = field(default_factory=dict)
    fill: Fill | None = None
    errors: Mapping[int, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For ``of``."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return plain

    @classmethod
    def of(cls, plain: Any) -> Self:
        """From ``plain``; raises ValueError for what is none."""
        reading: Self = _ADAPTER.validate_python(plain)
        return reading


_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(Reading)


def refused_counters(family: int) -> Named:
    """Packets of ``family`` that were dropped ahead of the queues, by what they would have opened;
    None when there is no such table.
    """
    found = named_counters(family, TABLE, REFUSED.values())
    return None if found is None else {what: found[name] for what, name in REFUSED.items()}


def read(families: Iterable[int]) -> Reading:
    """Read all of it now; takes long with thousands of backends."""
    tables: dict[int, Named] = {}
    carried: dict[int, Mapping[int, Mapping[str, CounterValue]]] = {}
    refused: dict[int, Named] = {}
    errors: dict[int, str] = {}
    for family in families:
        try:
            tables[family] = table_counters(family)
            carried[family] = carried_counters(family)
            refused[family] = refused_counters(family)
        except OSError as error:
            errors[family] = str(error)
    return Reading(tables, carried, refused, fill(), errors)
