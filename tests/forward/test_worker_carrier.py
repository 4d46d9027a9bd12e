"""Tests of ``paraglider.forward.worker_carrier``: the flow table is all there is to install."""

from __future__ import annotations

import pytest
from packets import V4, backend, service

from paraglider.core.flow import TCP, Flow
from paraglider.core.flow_states import SYN_SENT
from paraglider.core.verdict import REWRITTEN
from paraglider.forward.worker_carrier import WorkerCarrier

WEB = service(V4)
FIRST, SECOND, THIRD = WEB.pool.backends


def carrier() -> WorkerCarrier:
    """A carrier of ``WEB``."""
    made = WorkerCarrier()
    made.set_services([WEB])
    return made


def test_a_flow_is_translated_at_once() -> None:
    """The worker's own time of the last packet counts, and nothing is stored."""
    made = carrier()
    flow = Flow(TCP, bytes(12), bytes(12), WEB.translations[FIRST], SYN_SENT, 7.0)
    assert made.install(flow) == REWRITTEN
    made.moved(flow)
    assert not made.refresh(flow)
    assert (flow.carried, made.packets(flow), made.carried, made.counts()) == (0, None, 0, {})
    before = made.counters(FIRST)
    for what in (flow, FIRST):
        made.remove(what)
    made.sync(10.0)
    assert made.counters(FIRST) == before


def test_counters_are_those_of_the_backend_and_its_translation() -> None:
    """Each counter has its own name and source."""
    made, one, translation = carrier(), SECOND, WEB.translations[SECOND]
    one.flows, one.opening, one.closing, one.refused = 3, 1, 1, 9
    translation.packets_out, translation.bytes_out = 4, 5
    translation.packets_back, translation.bytes_back = 6, 7
    assert made.counters(one) == {
        "flows": 3,
        "inactive": 2,
        "refused": 9,
        "packets_out": 4,
        "bytes_out": 5,
        "packets_back": 6,
        "bytes_back": 7,
    }
    assert set(made.counters(THIRD).values()) == {0}


def test_services_that_left_are_not_counted() -> None:
    """The last ones that were set are all there are."""
    made = carrier()
    other = service(V4, backends=[backend("10.0.0.9")], name="other")
    made.set_services([other])
    assert made.counters(other.pool.backends[0])["flows"] == 0
    with pytest.raises(KeyError):
        made.counters(FIRST)
