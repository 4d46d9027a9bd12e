"""A table that is replaced whole, as a change: of leases, and of a backend's host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.forward.dsr import leases
from paraglider.forward.host_needs import NftTable
from paraglider.host.changes.base import Host
from paraglider.host.changes.records import from_record, to_record
from paraglider.host.changes.replaced_table import AnswersChange, OptionalTableChange
from paraglider.lab.namespace import Namespace

TABLE = "paraglider-backend-web"
TEXT = f"add table ip {TABLE}\nadd chain ip {TABLE} a\nflush chain ip {TABLE} a\n"
FIRST = AnswersChange(4, TABLE, TEXT)
SECOND = AnswersChange(4, TABLE, f"{TEXT}add rule ip {TABLE} a accept\n", previous=TEXT)


def listed(namespace: Namespace) -> str:
    """nft's listing."""
    return namespace.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.root
def test_applied_replaced_and_taken_back(inside: Namespace) -> None:
    """The kernel has the text; the roll-back restores the text before, the
    undo removes the table.
    """
    host = Host()
    FIRST.apply(host)
    first = listed(inside)
    assert f"table ip {TABLE}" in first
    SECOND.apply(host)
    assert "accept" in listed(inside)
    assert '"accept": null' in SECOND.settled(host).saved
    SECOND.revert(host)
    assert listed(inside) == first
    FIRST.revert(host)
    FIRST.revert(host)
    assert listed(inside) == ""


@pytest.mark.root
def test_the_scripts_can_be_pasted(inside: Namespace) -> None:
    """The scripts have the same effect as the change and its undo."""
    inside.run(["sh", "-e"], text=FIRST.script(Host()))
    assert TABLE in listed(inside)
    inside.run(["sh", "-e"], text=FIRST.revert_script(Host()))
    assert listed(inside) == ""


@pytest.mark.root
def test_what_nft_refuses_changes_nothing(inside: Namespace) -> None:
    """A text that is wrong in its last line leaves nothing of the lines before."""
    with pytest.raises(PlatformError, match="refuses"):
        replace(FIRST, text=f"{TEXT}add rule ip {TABLE} a nonsense\n").apply(Host())
    assert listed(inside) == ""


def test_described_and_stored() -> None:
    """The description names the table; the text before is not stored."""
    assert FIRST.describe("apply") == f"table ip {TABLE}: answers leave as the VIP"
    assert SECOND.describe("apply").endswith("in place of another")
    assert SECOND.describe("revert") == f"table ip {TABLE} removed"
    assert from_record(to_record(SECOND)) == replace(SECOND, previous=None)


DSR = leases.TABLE
TABLE_OF_LEASES = NftTable(DSR, f"add table ip {DSR}\n", "leases of flows", terse=True)
LEASES = OptionalTableChange.of(4, TABLE_OF_LEASES)
OTHER = replace(LEASES, text=f"{LEASES.text}# other\n", previous=LEASES.text)


def test_leases_replaced_and_taken_back(air: Any) -> None:
    """Back to the earlier table within a run; all the way when undoing."""
    LEASES.apply(air.host)
    OTHER.apply(air.host)
    assert air.nft.held(4, DSR) == OTHER.text
    OTHER.revert(air.host)
    assert air.nft.held(4, DSR) == LEASES.text
    LEASES.revert(air.host)
    assert air.nft.held(4, DSR) == ""


def test_scripts_of_leases(air: Any) -> None:
    """nft with its input; the revert removes only an existing table."""
    assert LEASES.script(air.host) == f"nft -f - <<'END'\nadd table ip {DSR}\nEND\n"
    assert LEASES.revert_script(air.host) == ""
    LEASES.apply(air.host)
    assert LEASES.revert_script(air.host) == f"nft -f - <<'END'\ndelete table ip {DSR}\nEND\n"


def test_what_is_reported() -> None:
    """Whether it is new, in another's place, or gone."""
    assert LEASES.describe("apply") == f"table ip {DSR}: leases of flows"
    assert OTHER.describe("apply") == f"table ip {DSR}: leases of flows in place of another"
    assert LEASES.describe("revert") == f"table ip {DSR} removed"


@pytest.mark.parametrize("kind", ["leases", "long", "openings"])
def test_records_of_earlier_versions_are_read(kind: str) -> None:
    """Each table had its own kind, without a purpose."""
    old = {"kind": kind, "family": 4, "table": DSR, "text": LEASES.text, "saved": "it"}
    found = from_record(old)
    assert isinstance(found, OptionalTableChange)
    assert found.identity == LEASES.identity
    assert (found.text, found.saved) == (LEASES.text, "it")
    assert from_record(to_record(LEASES)) == LEASES


@pytest.mark.root
def test_leases_are_no_change_of_the_table(inside: Namespace) -> None:
    """Elements that the kernel adds do not count; a removed rule does."""
    service = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr"}
    config = Config.model_validate({"services": [{**service, "backends": ["10.0.0.1"]}]})
    text = leases.lease_table(config, 4)
    assert text is not None
    change, host = OptionalTableChange(4, DSR, text, does="leases"), Host()
    change.apply(host)
    settled = change.settled(host)
    assert settled.saved
    name = text.split(" set ip paraglider-dsr ")[1].split()[0]
    element = "tcp . 192.0.2.1 . 40000 . 192.168.0.11 . 80"
    inside.run(["nft", "add", "element", "ip", DSR, name, "{", element, "timeout", "30s", "}"])
    assert change.settled(host) == settled
    change.apply(host)  # a change of the file: leases stay
    assert "192.0.2.1" in inside.run(["nft", "list", "set", "ip", DSR, name]).stdout
    assert change.settled(host) == settled
    inside.run(["nft", "flush", "chain", "ip", DSR, "asked"])
    assert change.settled(host) != settled
    replace(change).revert(host)
    assert host.nft.held(4, DSR) == ""
