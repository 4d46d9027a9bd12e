"""Changes as JSON-ready data and back, for the state."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from paraglider.host.changes.base import Change
from paraglider.host.changes.default_route import DefaultRouteChange
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.links import AddressChange, NeighbourChange
from paraglider.host.changes.needs import ServedChange
from paraglider.host.changes.replaced_table import AnswersChange, OptionalTableChange
from paraglider.host.changes.routes import PolicyRuleChange, ProxyChange, RouteChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.sysctls import ForwardingChange, SysctlChange
from paraglider.host.changes.table import TableChange
from paraglider.host.changes.tunnels import TunnelDeviceChange, TunnelEndChange, TunnelPortChange

_STORED: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        SysctlChange,
        ForwardingChange,
        AddressChange,
        NeighbourChange,
        RulesChange,
        LegacyChange,
        TableChange,
        AnswersChange,
        DefaultRouteChange,
        ServedChange,
        OptionalTableChange,
        RouteChange,
        PolicyRuleChange,
        ProxyChange,
        TunnelEndChange,
        TunnelDeviceChange,
        TunnelPortChange,
    )
}
#: kinds of records of version 1.0 and before: each was a table that a host may do without
_OLD_TABLES = ("leases", "long", "openings")


def is_stored(change: Change) -> bool:
    """Whether the change is stored in the state for the undo."""
    return change.kind in _STORED


def to_record(change: Change) -> dict[str, Any]:
    """The change as JSON-ready data."""
    record: dict[str, Any] = {"kind": change.kind}
    for item in fields(_STORED[change.kind]):
        if item.metadata.get("stored", True):
            record[item.name] = getattr(change, item.name)
    return record


def from_record(record: dict[str, Any]) -> Change:
    """The change of a ``record``; raises ``KeyError`` or ``TypeError`` if it is invalid."""
    content = dict(record)
    kind = content.pop("kind")
    kind = OptionalTableChange.kind if kind in _OLD_TABLES else kind
    change: Change = _STORED[kind](**content)
    return change
