"""The table of offload as a change: applied, replaced, taken back, stored."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from paraglider.config.model import Config
from paraglider.host.changes.records import from_record, to_record
from paraglider.host.changes.table import TableChange
from paraglider.netfilter.conntrack import Entry
from paraglider.netfilter.rules.claims import Claims
from paraglider.netfilter.rules.marks import backend_marks

FIRST = TableChange(4, "add table ip paraglider\n", [0x51000001, 0x51000002])
SECOND = TableChange(
    4,
    "add table ip paraglider\n# other\n",
    [0x51000002, 0x51000003],
    previous=(FIRST.text, FIRST.marks),
)


def test_connections_to_what_left_are_forgotten(air: Any) -> None:
    """Replacing forgets the backends that are in it no more, and only those."""
    FIRST.apply(air.host)
    assert air.conntrack.forgotten == []
    SECOND.apply(air.host)
    assert air.nft.held(4).startswith(SECOND.text)
    assert air.conntrack.forgotten == [0x51000001]


def test_taken_back(air: Any) -> None:
    """A failed run brings the table before it back; an undo removes it with its connections."""
    FIRST.apply(air.host)
    SECOND.apply(air.host)
    SECOND.revert(air.host)
    assert air.nft.held(4).startswith(FIRST.text)
    air.conntrack.forgotten.clear()
    FIRST.revert(air.host)
    assert air.nft.tables == {}
    assert air.conntrack.forgotten == FIRST.marks


def test_as_commands(air: Any) -> None:
    """The dry run shows nft with its input, and conntrack for each backend that left."""
    assert FIRST.script(air.host) == f"nft -f - <<'END'\n{FIRST.text}END\n"
    assert SECOND.script(air.host).endswith("conntrack -D --mark 0x51000001\n")
    assert "delete table" not in FIRST.revert_script(air.host)
    FIRST.apply(air.host)
    assert "delete table ip paraglider\n" in FIRST.revert_script(air.host)


ALONE = replace(FIRST, served=[{"name": "web"}])
NEXT = replace(SECOND, served=[{"name": "web"}])


def test_where_the_kernel_is_alone_connections_go_on(air: Any) -> None:
    """Until the undo, which also ends those of backends that were removed before."""
    ALONE.apply(air.host)
    NEXT.apply(air.host)
    assert air.conntrack.forgotten == []
    assert "conntrack" not in NEXT.script(air.host)
    replace(NEXT, previous=None).revert(air.host)
    assert air.nft.tables == {}
    assert air.conntrack.forgotten == [0x51000000]
    assert 0xFF800000 in air.conntrack.masks
    assert "conntrack -D --mark 0x51000000/0xff800000\n" in ALONE.revert_script(air.host)


def test_counters_of_what_left_go(air: Any) -> None:
    """The change removes the counters of removed backends, the roll-back those of added ones."""
    NEXT.apply(air.host)
    assert "delete counter ip paraglider begun-51000001\n" in air.nft.held(4)
    assert "begun-51000002" not in air.nft.held(4)
    NEXT.revert(air.host)
    assert "delete counter ip paraglider replies-51000003\n" in air.nft.held(4)
    assert "begun-51000002" not in air.nft.held(4)
    assert "delete counter ip paraglider replies-51000001\n" in SECOND.input
    assert "begun" not in SECOND.input


def test_on_one_line() -> None:
    """How many backends, and how many are gone."""
    assert FIRST.describe("apply") == "table ip paraglider: 2 backends"
    wanted = "table ip paraglider: 2 backends, 1 gone in place of another"
    assert SECOND.describe("apply") == wanted
    assert replace(FIRST, family=6).describe("revert") == "table ip6 paraglider removed"


def test_stored_and_read_again(air: Any) -> None:
    """The kernel's listing is stored, the replaced table is not."""
    FIRST.apply(air.host)
    settled = SECOND.settled(air.host)
    assert settled.saved == FIRST.text
    assert from_record(to_record(settled)) == replace(settled, previous=None)


def test_old_datagrams_are_found(air: Any) -> None:
    """The ports of UDP services are checked, also when the table is restored; they are stored for
    that.
    """
    change = replace(FIRST, datagrams=[["192.168.0.11", 53, 53], ["192.168.0.11", 100, 200]])
    change.apply(air.host)
    again = from_record(to_record(change.settled(air.host)))
    again.apply(air.host)
    assert air.conntrack.looked_at == [("192.168.0.11", 53, 53), ("192.168.0.11", 100, 200)] * 2


def entry(mark: int, port: int, backend: str, backend_port: int) -> Entry:
    """A TCP connection to the VIP."""
    vip, to = (ipaddress.ip_address(text).packed for text in ("192.0.2.1", backend))
    return Entry(mark, 6, vip, port, to, backend_port, 3, b"")


def test_connections_of_a_service_that_is_still_there_get_its_mark(air: Any) -> None:
    """By VIP, protocol, port and backend, with any mark before; others are deleted, and if the
    kernel balances alone, those that are not live TCP connections.
    """
    service = {"name": "a", "vip": "192.0.2.1/32", "protocol": "tcp", "forward": "offload"}
    config = Config.model_validate({"services": [{**service, "backends": ["10.0.0.1"]}]})
    marks = backend_marks(config)
    claims = Claims(config.services, marks)
    air.conntrack.entries += [
        entry(0x51000001, 80, "10.0.0.1", 80),
        entry(0x51000001, 81, "10.0.0.1", 80),
        entry(0x51000001, 80, "10.0.0.9", 80),
        entry(0x51000002, 80, "10.0.0.1", 80),
    ]
    change = replace(SECOND, claims=claims)
    change.apply(air.host)
    assert air.conntrack.marked == [marks["a"][0], None, None]
    assert air.conntrack.forgotten == [0x51000001]
    assert not air.conntrack.passing
    replace(NEXT, claims=claims).apply(air.host)
    assert air.conntrack.passing == {0x51000001}
