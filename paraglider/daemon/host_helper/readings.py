"""Reads the kernel's tables and conntrack, in the host helper.

Lives here: ``read``, which makes a ``messages.Reading``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from paraglider.daemon.host_helper.carrier import CarrierAttachment
from paraglider.daemon.messages import Reading
from paraglider.forward.openings import REFUSED, TABLE
from paraglider.netfilter.connections import fill
from paraglider.netfilter.nfnetlink import (
    CounterValue,
    carried_counters,
    named_counters,
    table_counters,
)


def refused_counters(family: int) -> dict[str, int] | None:
    """Packets of ``family`` dropped before the queues, by protocol; None without a table."""
    found = named_counters(family, TABLE, REFUSED.values())
    return None if found is None else {what: found[name] for what, name in REFUSED.items()}


def read(families: Iterable[int], carrier: CarrierAttachment | None = None) -> Reading:
    """Read everything now, of ``carrier`` too; takes long with thousands of backends."""
    tables: dict[int, dict[str, int] | None] = {}
    carried: dict[int, dict[int, dict[str, CounterValue]]] = {}
    refused: dict[int, dict[str, int] | None] = {}
    errors: dict[int, str] = {}
    for family in families:
        try:
            tables[family] = table_counters(family)
            carried[family] = carried_counters(family)
            refused[family] = refused_counters(family)
        except OSError as error:
            errors[family] = str(error)
    counted = None
    if carrier is not None:
        with contextlib.suppress(OSError):  # it is read again
            counted = carrier.read()
    return Reading(
        tables=tables,
        carried=carried,
        refused=refused,
        fill=fill(),
        errors=errors,
        carrier=counted,
    )
