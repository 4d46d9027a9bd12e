"""The note of which changes a service needs."""

from __future__ import annotations

import json

from paraglider.host.changes.base import Host
from paraglider.host.changes.needs import ServedChange
from paraglider.host.changes.records import from_record, to_record

CHANGE = ServedChange(4, "web", ["10.0.0.1"], [["sysctl", "net/ipv4/conf/all/arp_ignore"]])


def test_it_changes_nothing() -> None:
    """There is no command for it, either way."""
    assert CHANGE.script(Host()) + CHANGE.revert_script(Host()) == ""


def test_described_and_stored() -> None:
    """It names service and backend, and is equal after JSON."""
    assert CHANGE.describe("apply") == "this host serves `web` as 10.0.0.1"
    assert CHANGE.describe("revert") == "this host no longer serves `web` as 10.0.0.1"
    assert from_record(json.loads(json.dumps(to_record(CHANGE)))) == CHANGE
