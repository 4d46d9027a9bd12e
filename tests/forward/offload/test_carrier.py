"""Tests of ``paraglider.forward.offload.carrier``: stored decisions and counts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import V4, backend

from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.verdict import MARK
from paraglider.forward.offload.carrier import REMEMBERED, ConntrackCarrier, Decided

MARKS = (0x51000001, 0x51800002, 0x51FFFFFF)


def made() -> tuple[list[Backend], ConntrackCarrier]:
    """Three backends, and a carrier with ``MARKS``."""
    backends = [backend(address) for address in V4.backends]
    return backends, ConntrackCarrier(dict(zip(backends, MARKS, strict=True)))


def decided(one: Backend, key: bytes = b"k", protocol: int = TCP, seen: float = 0.0) -> Decided:
    """A flow to ``one``."""
    return Decided(protocol, key, one, 7, seen)


def test_a_decision_is_found_by_protocol_and_key() -> None:
    """The verdict is the mark of the backend."""
    (one, *_), carrier = made()
    flow = decided(one, seen=3.0)
    assert carrier.install(flow) == MARK | MARKS[0] << 8
    assert carrier.find(TCP, b"k", 3.0) is flow
    assert carrier.find(UDP, b"k", 3.0) is None
    assert carrier.find(TCP, b"l", 3.0) is None
    assert carrier.counters(one) == {}


@pytest.mark.parametrize("turned", [False, True])
def test_removed_flows_are_decided_again(turned: bool) -> None:
    """One flow, or all to a backend, of both generations; an unknown flow is ignored."""
    (one, other, third), carrier = made()
    for number, to in enumerate((one, one, other)):
        carrier.install(decided(to, bytes([number])))
    if turned:
        carrier.sync(1.0)
    carrier.remove(decided(one, b"\0"))
    assert len(carrier) == 2
    carrier.remove(decided(one, b"\0"))
    carrier.remove(third)
    assert len(carrier) == 2
    carrier.remove(one)
    assert len(carrier) == 1
    found = carrier.find(TCP, b"\2", 1.0)
    assert found is not None
    assert found.backend is other


def test_new_marks_forget_removed_backends() -> None:
    """Decisions for backends that stay are kept, with the new marks."""
    (one, other, _), carrier = made()
    carrier.install(decided(one, b"a"))
    carrier.sync(1.0)
    carrier.install(decided(other, b"b"))
    carrier.set_marks({one: 0x51000009})
    assert len(carrier) == 1
    assert carrier.find(TCP, b"a", 1.0) is not None
    assert carrier.verdicts == {one: MARK | 0x51000009 << 8}


def test_without_a_count_flows_are_those_since_the_last_sync() -> None:
    """Until then a backend's flows are those decided since the last sync."""
    (one, other, _), carrier = made()
    for key in (b"a", b"b"):
        carrier.install(decided(one, key))
    assert (one.flows, other.flows) == (2, 0)
    carrier.sync(1.0)
    assert (one.flows, other.flows) == (0, 0)


@given(st.lists(st.floats(0.0, REMEMBERED), max_size=30))
def test_a_decision_lasts_for_one_generation_at_least_and_two_at_most(gaps: list[float]) -> None:
    """With any times of the ticks."""
    (one, *_), carrier = made()
    born: dict[bytes, float] = {}
    for number, now in enumerate(itertools.accumulate(gaps, initial=1000.0)):
        carrier.sync(now)
        for key, at in born.items():
            found = carrier.find(TCP, key, now) is not None
            if now - at < REMEMBERED:
                assert found
            elif now - at >= 3 * REMEMBERED:
                assert not found
        key = number.to_bytes(2, "big")
        carrier.install(decided(one, key, seen=now))
        born[key] = now
