"""The table of leases as a change: applied, replaced, taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.lab.namespace import Namespace
from paraglider.rules.leases import TABLE, lease_table
from paraglider.system.changes.base import Host
from paraglider.system.changes.leases import LeasesChange

FIRST = LeasesChange(4, f"add table ip {TABLE}\n")
SECOND = LeasesChange(4, f"add table ip {TABLE}\n# other\n", previous=FIRST.text)


def test_replaced_and_taken_back(air: Any) -> None:
    """Back to the earlier table within a run; all the way when undoing."""
    FIRST.apply(air.host)
    SECOND.apply(air.host)
    assert air.nft.held(4, TABLE) == SECOND.text
    SECOND.revert(air.host)
    assert air.nft.held(4, TABLE) == FIRST.text
    FIRST.revert(air.host)
    assert air.nft.held(4, TABLE) == ""


def test_scripts(air: Any) -> None:
    """nft with its input; to take back there is only what is there."""
    assert FIRST.script(air.host) == f"nft -f - <<'END'\nadd table ip {TABLE}\nEND\n"
    assert FIRST.revert_script(air.host) == ""
    FIRST.apply(air.host)
    assert FIRST.revert_script(air.host) == f"nft -f - <<'END'\ndelete table ip {TABLE}\nEND\n"


def test_what_is_told() -> None:
    """Whether it is new, in another's place, or gone."""
    assert FIRST.describe("apply") == f"table ip {TABLE}: leases of flows"
    assert SECOND.describe("apply") == f"table ip {TABLE}: leases of flows in place of another"
    assert FIRST.describe("revert") == f"table ip {TABLE} removed"


@pytest.mark.root
def test_leases_are_no_change_of_the_table(inside: Namespace) -> None:
    """What the kernel adds by itself does not count; a rule that somebody takes out does."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr"}
    config = Config.model_validate({"services": [{**service, "backends": ["10.0.0.1"]}]})
    text = lease_table(config, 4)
    assert text is not None
    change, host = LeasesChange(4, text), Host()
    change.apply(host)
    settled = change.settled(host)
    assert settled.saved
    name = text.split(" set ip paraglider-dsr ")[1].split()[0]
    element = "tcp . 192.0.2.1 . 40000 . 192.168.0.11 . 80"
    inside.run(["nft", "add", "element", "ip", TABLE, name, "{", element, "timeout", "30s", "}"])
    assert change.settled(host) == settled
    change.apply(host)  # a change of the file: leases stay
    assert "192.0.2.1" in inside.run(["nft", "list", "set", "ip", TABLE, name]).stdout
    assert change.settled(host) == settled
    inside.run(["nft", "flush", "chain", "ip", TABLE, "asked"])
    assert change.settled(host) != settled
    replace(change).revert(host)
    assert host.nft.held(4, TABLE) == ""
