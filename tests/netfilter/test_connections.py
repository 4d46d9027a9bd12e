"""The kernel's connection events: ours, others' and garbage; and the fill of its table."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.netfilter import connections
from paraglider.netfilter.connections import (
    CT_DELETE,
    CT_NEW,
    CTNETLINK,
    ConntrackEvent,
    Fill,
    Turn,
    event,
    fill,
)
from paraglider.netfilter.nfnetlink import attribute, message
from paraglider.netfilter.rules.marks import BASE

CREATED = 0x600  # NLM_F_CREATE | NLM_F_EXCL
ESTABLISHED, LAST_ACK, TIME_WAIT, CLOSE = 3, 6, 7, 8


def told(kind: int, mark: int, flags: int = CREATED, state: int = 0) -> bytes:
    """The kernel's message, as far as it matters; ``state`` is TCP's."""
    body = attribute(connections.CTA_MARK, struct.pack("!I", mark))
    body += attribute(connections.CTA_ID, struct.pack("!I", 77))
    if state:
        body += attribute(4, attribute(1, attribute(1, bytes([state]))))
    return message(CTNETLINK, kind, 2, body, flags)


@pytest.mark.parametrize(
    ("kind", "flags", "state", "turn"),
    [
        (CT_NEW, CREATED, 0, "began"),
        (CT_NEW, CREATED, 1, "began"),
        (CT_NEW, 0, ESTABLISHED, None),
        (CT_NEW, 0, LAST_ACK, None),
        (CT_NEW, 0, TIME_WAIT, "closed"),
        (CT_NEW, 0, CLOSE, "closed"),
        (CT_DELETE, 0, 0, "ended"),
        (CT_DELETE, 0, ESTABLISHED, "ended"),
        (CT_DELETE, 0, TIME_WAIT, "forgotten"),
        (CT_DELETE, 0, CLOSE, "forgotten"),
    ],
)
def test_a_connection_of_ours(kind: int, flags: int, state: int, turn: Turn | None) -> None:
    """Events have identity and mark: a TCP connection is closed first, and destroyed later."""
    wanted = None if turn is None else ConntrackEvent(turn, 77, BASE | 5)
    assert event(told(kind, BASE | 5, flags, state)) == wanted


@pytest.mark.parametrize("mark", [0, 1, 0x50470000])
def test_a_connection_of_others(mark: int) -> None:
    """Connections without one of our marks are skipped; so are messages without a connection."""
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
