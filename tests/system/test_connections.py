"""What the kernel tells of connections: ours, others', and garbage; how full its table is."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.rules.marks import BASE
from paraglider.system import connections
from paraglider.system.connections import CT_DELETE, CT_NEW, CTNETLINK, Event, Fill, event, fill
from paraglider.system.nfnetlink import message
from paraglider.system.queue.messages import attribute


def told(kind: int, mark: int, identity: int = 77) -> bytes:
    """The kernel's message, as far as it matters."""
    body = attribute(connections.CTA_MARK, struct.pack("!I", mark))
    body += attribute(connections.CTA_ID, struct.pack("!I", identity))
    return message(CTNETLINK, kind, 2, body, 0)


@pytest.mark.parametrize(("kind", "began"), [(CT_NEW, True), (CT_DELETE, False)])
def test_a_connection_of_ours(kind: int, began: bool) -> None:
    """Its beginning and its end are told with identity and mark."""
    assert event(told(kind, BASE | 5)) == Event(began, 77, BASE | 5)


@pytest.mark.parametrize("mark", [0, 1, 0x50470000])
def test_a_connection_of_others(mark: int) -> None:
    """Without one of our marks it is passed over; so is a message without any."""
    assert event(told(CT_NEW, mark)) is None
    assert event(message(CTNETLINK, CT_NEW, 2, b"", 0)) is None


@given(st.binary(max_size=120))
def test_garbage_is_no_event(data: bytes) -> None:
    """No bytes raise; only whole messages with one of our marks are events."""
    found = event(data)
    assert found is None or found.mark & 0xFF000000 == BASE


def test_fill(tmp_path: Path) -> None:
    """Held and limit are decimal; drops are hexadecimal, one row a core, added up."""
    values = tmp_path / "sys/net/netfilter"
    values.mkdir(parents=True)
    (values / "nf_conntrack_count").write_text("12\n")
    (values / "nf_conntrack_max").write_text("262144\n")
    (tmp_path / "net/stat").mkdir(parents=True)
    rows = "entries drop early_drop\n0000000c 0000000a 00000000\n0000000c 00000006 00000000\n"
    (tmp_path / "net/stat/nf_conntrack").write_text(rows)
    assert fill(tmp_path) == Fill(12, 262144, 16)
    assert fill(tmp_path / "nothing") is None
