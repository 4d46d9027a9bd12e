"""Connections of backends' own: how long they are known, and how many."""

from __future__ import annotations

import pytest

from paraglider.core import own_connections
from paraglider.core.own_connections import ASKED_SECONDS, OWN_SECONDS, OwnConnections


def test_a_client_has_some_time_to_go_on() -> None:
    """If it does, it is not asked any more."""
    known = OwnConnections()
    assert not known.is_overdue(b"1", 0.0)
    known.ask(b"1", 0.0)
    assert known.is_asked(b"1")
    assert not known.is_overdue(b"1", ASKED_SECONDS - 0.1)
    assert known.is_overdue(b"1", ASKED_SECONDS)
    assert known.answer(b"1")
    assert not known.is_overdue(b"1", ASKED_SECONDS)


def test_a_connection_is_known_while_it_is_used() -> None:
    """And for as long as any flow is kept after that."""
    known = OwnConnections()
    known.ask(b"1", 0.0)
    known.add(b"1", 0.0)
    assert not known.is_asked(b"1")
    assert known.has(b"1", OWN_SECONDS - 1)
    assert known.has(b"1", 2 * OWN_SECONDS - 2)
    assert not known.has(b"1", 3 * OWN_SECONDS)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(own_connections, "OWN_MOST", 2)
    monkeypatch.setattr(own_connections, "ASKED_MOST", 2)
    known, keys = OwnConnections(), (b"1", b"2", b"3")
    for key in keys:
        known.ask(key, 0.0)
    assert [known.is_asked(key) for key in keys] == [False, True, True]
    for key in keys:
        known.add(key, 0.0)
    assert [known.has(key, 1.0) for key in keys] == [False, True, True]
    assert not known.answer(b"3")
