"""The tables of flow states: whole, and without a way that they must not have."""

from __future__ import annotations

import pytest

from paraglider.core import flow_states as states
from paraglider.core.flow_states import (
    ACTIVE,
    C_ACK,
    C_FIN,
    C_PROOF,
    C_RST,
    C_SYN,
    CLASS_OF,
    CLOSED_CLASS,
    EVENTS,
    GROUP_OF,
    ONE_SIDED,
    OPENING,
    PROTOCOL_OF,
    STATES,
    TWO_SIDED,
    Transitions,
    flattened,
)

BOTH = pytest.mark.parametrize("table", [TWO_SIDED, ONE_SIDED], ids=["two-sided", "one-sided"])
CLOSED = {s for s in range(STATES) if CLASS_OF[s] == CLOSED_CLASS and PROTOCOL_OF[s]}


@BOTH
def test_the_flat_table_equals_the_tables(table: Transitions) -> None:
    """The flat table equals the tables for every pair; a pair without a row keeps the state."""
    flat = flattened(table)
    for state in range(STATES):
        for event in range(EVENTS):
            expected = table.get(state, {}).get(event, state)
            assert flat[state * EVENTS + event] == expected


@BOTH
def test_tcp_stays_tcp(table: Transitions) -> None:
    """No event leads into a state of another protocol, or out of the table."""
    for row in table.values():
        assert {PROTOCOL_OF[after] for after in row.values()} == {"tcp"}


@BOTH
def test_a_syn_opens_a_flow_from_where_one_may_be_over_alone(table: Transitions) -> None:
    """A SYN opens a flow from every state in which one may be over, and from no other; otherwise a
    client's port could not be used again.
    """
    opened = {state for state, row in table.items() if C_SYN in row}
    assert opened == (CLOSED | {states.CLIENT_DONE}) & table.keys()
    assert {row[C_SYN] for row in table.values() if C_SYN in row} == {states.SYN_SENT}


@BOTH
def test_no_blind_client_makes_a_flow_that_nothing_evicts(table: Transitions) -> None:
    """A client without proof cannot reach an active state by any series of events."""
    blind = (C_SYN, C_ACK, C_RST) if table is TWO_SIDED else (C_SYN, C_ACK, C_RST, C_FIN)
    reached = {states.SYN_SENT}
    while True:
        further = {table.get(s, {}).get(event, s) for s in reached for event in blind}
        if further <= reached:
            break
        reached |= further
    assert not any(GROUP_OF[state] == ACTIVE for state in reached)


@BOTH
def test_a_client_with_proof_is_established(table: Transitions) -> None:
    """A client with proof reaches established from every opening state."""
    for state in range(STATES):
        if GROUP_OF[state] == OPENING and C_PROOF in table.get(state, {}):
            assert table[state][C_PROOF] == states.ESTABLISHED


def test_numbers_of_the_journal_keep_their_meaning() -> None:
    """A journal of the version before has these; a new state takes a new number."""
    assert states.STATE_NAMES[:8] == (
        "syn-sent",
        "syn-received",
        "established",
        "last-ack",
        "udp-new",
        "udp",
        "icmp",
        "gone",
    )
