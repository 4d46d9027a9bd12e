"""Flows of other workers' journals: each worker gets those that are steered to it, no others."""

from __future__ import annotations

import pytest
from journals import SHORT, STATES, World, key, known, memory, opened
from packets import V4, V6

from paraglider.core.flow import ICMP, ICMP6, TCP, UDP
from paraglider.core.flow_states import ESTABLISHED, STATE_NAMES, SYN_SENT, TIME_WAIT
from paraglider.core.flow_table import FlowTable
from paraglider.core.hmark import WorkerShare, worker_of
from paraglider.core.journal import HEADER, RECORD, Journal
from paraglider.core.resteering import take_over
from paraglider.core.restore import BEAT, restore

SEED = 0x12345678
FLOWS = 120


def journal_of(numbers: range, bound: int = 200) -> tuple[bytearray, FlowTable]:
    """The journal of a worker that has flows of both families and all protocols, and its table."""
    world, buffer = World(), memory(bound)
    table = FlowTable(SHORT, bound)
    restore(table, Journal(buffer), world.translations, 0.0)
    for number in numbers:
        family = (V4, V6)[number % 2]
        protocol = (TCP, UDP, TCP, ICMP)[number // 2 % 4]
        flow = opened(table, world.translation(family, number % 3), protocol, number, 1.0)
        states = STATES[ICMP if flow.protocol == ICMP6 else flow.protocol]
        table.move(flow, states[number % len(states)], 1.0)
    table.expire(1.0, 0)
    return buffer, table


def restored(buffer: bytearray, bound: int = 200, now: float = 1.0) -> FlowTable:
    """The table of a worker with that journal."""
    table = FlowTable(SHORT, bound)
    restore(table, Journal(buffer), World().translations, now)
    return table


@pytest.mark.parametrize("by_client", [False, True], ids=("flow", "client"))
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_each_flow_goes_to_the_worker_that_gets_its_packets(workers: int, by_client: bool) -> None:
    """From two workers to any number: no flow is missed or is twice; journals stay as they were."""
    halves = [journal_of(range(FLOWS // 2)), journal_of(range(FLOWS // 2, FLOWS))]
    before = [bytes(buffer) for buffer, _ in halves]
    wanted = set.union(*(known(table) for _, table in halves))
    assert len(wanted) == FLOWS
    found = set()
    for worker in range(workers):
        share = WorkerShare(worker, workers, SEED, (by_client, by_client))
        mine = memory(200)
        others = (Journal(buffer) for buffer, _ in halves)
        assert take_over(Journal(mine), others, World().translations, share) == 0
        flows = known(restored(mine))
        assert not found & flows
        found |= flows
        for protocol, forward, *_ in flows:
            size = (len(forward) - 4) // 2
            ported = protocol in (TCP, UDP) and not by_client
            port = int.from_bytes(forward[-4:-2], "big") if ported else 0
            assert worker_of(forward[:size], port, SEED, workers) == worker
    assert found == wanted
    assert [bytes(buffer) for buffer, _ in halves] == before


def test_what_was_in_the_journal_is_discarded() -> None:
    """It was not complete: its worker ended while it filled it."""
    mine, _ = journal_of(range(100, 110))
    other, table = journal_of(range(20))
    everything = WorkerShare(0, 1, SEED)
    assert take_over(Journal(mine), [Journal(other)], World().translations, everything) == 0
    assert known(restored(mine)) == known(table)


def test_the_last_sign_of_life_is_that_of_the_others() -> None:
    """Flows that timed out while no worker ran are left out; those of a worker that ended earlier
    have the time of the later one.
    """
    early, _ = journal_of(range(10))
    late, _ = journal_of(range(10, 20))
    Journal(early).tick(3.0)
    Journal(late).tick(8.0)
    everything = WorkerShare(0, 1, SEED)
    for others in ((early, late), (late, early)):
        mine = memory(200)
        journals = [Journal(buffer) for buffer in others]
        take_over(Journal(mine), journals, World().translations, everything)
        assert Journal(mine).alive == 8.0


def test_a_journal_that_is_not_complete_is_none() -> None:
    """Its worker took over flows that are in another one too."""
    other, _ = journal_of(range(10))
    Journal(other).complete = False
    mine = memory()
    everything = WorkerShare(0, 1, SEED)
    assert take_over(Journal(mine), [Journal(other)], World().translations, everything) == 0
    assert known(restored(mine)) == set()


def test_active_flows_have_the_room() -> None:
    """In a smaller journal they replace flows that are not, whichever come first."""
    buffer, world = memory(60), World()
    table = FlowTable(SHORT, 60)
    restore(table, Journal(buffer), world.translations, 0.0)
    for number in range(60):
        flow = opened(table, world.translation(V4, number % 3), TCP, number, 1.0)
        if number % 3 == 1:
            table.move(flow, ESTABLISHED, 1.0)
        elif number % 3 == 2:
            table.move(flow, TIME_WAIT, 1.0)
    everything = WorkerShare(0, 1, SEED)
    for room, active in ((30, 20), (15, 15)):
        mine = memory(room)
        refused = take_over(Journal(mine), [Journal(buffer)], World().translations, everything)
        assert refused == 60 - room
        flows = known(restored(mine, room))
        assert len(flows) == room
        assert sum(state == ESTABLISHED for _, _, _, state, *_ in flows) == active


def test_without_memory_nothing_is_in_the_journal() -> None:
    """The caller restores the flows without it."""
    other, _ = journal_of(range(10))
    mine = memory()
    none = Journal(mine, lambda _start, _end: False)
    everything = WorkerShare(0, 1, SEED)
    assert take_over(none, [Journal(other)], World().translations, everything) is None
    assert none.highest == 0


def test_records_of_damaged_files() -> None:
    """States and identities that nobody has are copied, and left out when flows are restored."""
    other, _ = journal_of(range(4))
    for number, byte in ((0, 200), (1, len(STATE_NAMES))):
        other[HEADER + RECORD * number] = byte + 1
    other[HEADER + RECORD * 2 + 4] ^= 1
    mine = memory()
    everything = WorkerShare(0, 1, SEED)
    assert take_over(Journal(mine), [Journal(other)], World().translations, everything) == 0
    assert len(known(restored(mine))) == 1


def test_a_sign_of_life_now_and_then() -> None:
    """Also while flows of other workers are passed over."""
    world, buffer = World(), memory(2 * BEAT)
    journal = Journal(buffer)
    identity = world.translation(V4, 0).identity
    for _ in range(2 * BEAT):
        journal.write(identity, key(V4, 1), SYN_SENT)
    beats = []
    alien = 1 - worker_of(key(V4, 1)[:4], 40001, SEED, 2)
    take_over(
        Journal(memory()), [journal], world.translations, WorkerShare(alien, 2, SEED),
        lambda: beats.append(1),
    )  # fmt: skip
    assert len(beats) == 2
