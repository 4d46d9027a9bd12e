"""The table of a backend's host, as a change, against the real kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paraglider.errors import PlatformError
from paraglider.lab.namespace import Namespace
from paraglider.system.changes.answers import AnswersChange
from paraglider.system.changes.base import Host
from paraglider.system.changes.records import from_record, to_record

TABLE = "paraglider-backend-web"
TEXT = f"add table ip {TABLE}\nadd chain ip {TABLE} a\nflush chain ip {TABLE} a\n"
FIRST = AnswersChange(4, TABLE, TEXT)
SECOND = AnswersChange(4, TABLE, f"{TEXT}add rule ip {TABLE} a accept\n", previous=TEXT)


def listed(namespace: Namespace) -> str:
    """What nft lists."""
    return namespace.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.root
def test_applied_replaced_and_taken_back(inside: Namespace) -> None:
    """The text is what the kernel holds; back is the text before, and then none at all."""
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
    """What is printed does what the change does, and back."""
    inside.run(["sh", "-e"], text=FIRST.script(Host()))
    assert TABLE in listed(inside)
    inside.run(["sh", "-e"], text=FIRST.revert_script(Host()))
    assert listed(inside) == ""


@pytest.mark.root
def test_what_nft_refuses_changes_nothing(inside: Namespace) -> None:
    """A text that is wrong in its last line leaves nothing of the lines before."""
    with pytest.raises(PlatformError, match="refused"):
        replace(FIRST, text=f"{TEXT}add rule ip {TABLE} a nonsense\n").apply(Host())
    assert listed(inside) == ""


def test_described_and_stored() -> None:
    """It says which table; the text before is not stored."""
    assert FIRST.describe("apply") == f"table ip {TABLE}: answers leave as the VIP"
    assert SECOND.describe("apply").endswith("in place of another")
    assert SECOND.describe("revert") == f"table ip {TABLE} removed"
    assert from_record(to_record(SECOND)) == replace(SECOND, previous=None)
