"""The numbers that the tracker and the workers share: live flows, and those on their way."""

from __future__ import annotations

import os

from paraglider.config.model import Config
from paraglider.forward.offload.connection_counts import READINGS, LiveFlows, wanted
from paraglider.netfilter.rules.marks import backend_marks

MARKS = (0x51000001, 0x51000002, 0x51800003)
FIRST, SECOND, _ = MARKS


def test_a_pick_counts_until_the_tracker_has_it_and_after() -> None:
    """Once at every moment: decided, in flight, begun."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    assert read({})[FIRST] == 0
    assert read({FIRST: 3})[FIRST] == 3
    live.change(FIRST, 2, 0)
    assert read({FIRST: 3})[FIRST] == 3
    live.change(FIRST, 1, 0)
    assert read({FIRST: 3})[FIRST] == 3
    live.change(FIRST, 0, 2)
    assert read({FIRST: 3}) == {FIRST: 1, SECOND: 0, MARKS[2]: 0}


def test_what_another_worker_picked_counts_too() -> None:
    """As soon as that worker has published it, before the counter has the event."""
    live = LiveFlows(MARKS, workers=2)
    one, other = live.reader(0), live.reader(1)
    one({})
    other({})
    other({SECOND: 4})
    assert one({SECOND: 1})[SECOND] == 5
    live.change(SECOND, 5, 0)
    assert one({SECOND: 1})[SECOND] == other({SECOND: 4})[SECOND] == 5


def test_dropped_openings_stop_counting() -> None:
    """A packet that a firewall drops after it was decided about counts for half a second."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    read({})
    counts = []
    for _ in range(READINGS + 1):
        live.mark_polled()
        counts.append(read({FIRST: 2})[FIRST])
    assert counts == [2] * (READINGS - 1) + [0] * 2
    assert read({FIRST: 5})[FIRST] == 3


def test_a_counter_that_waits_for_a_core_loses_nothing() -> None:
    """Flows are in flight until it has read their events, however long that takes."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    for _ in range(READINGS):
        live.mark_polled()
        read({})
    found = [read({FIRST: n})[FIRST] for n in range(5 * READINGS)]
    assert found == [*range(5 * READINGS)]
    live.change(FIRST, found[-1], 0)
    for _ in range(2 * READINGS):
        live.mark_polled()
        assert read({FIRST: found[-1]})[FIRST] == found[-1]


def test_the_kernels_picks_count_once() -> None:
    """The kernel's own choice while no worker lived; and it hides no pick afterwards."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    read({})
    live.change(FIRST, 7, 0)
    assert read({})[FIRST] == 7
    assert read({FIRST: 2})[FIRST] == 9
    live.change(FIRST, 2, 0)
    assert read({FIRST: 2})[FIRST] == 9


def test_a_worker_that_is_replaced_goes_on_from_there() -> None:
    """Its successor begins at zero and is not taken for one that has unpicked flows."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    read({})
    read({FIRST: 10})
    live.change(FIRST, 10, 0)
    again = live.reader(0)
    assert again({})[FIRST] == 10
    assert again({FIRST: 1})[FIRST] == 11


def test_counting_again_ends_what_was_in_flight() -> None:
    """The list has everything; the events that were lost are not waited for."""
    live = LiveFlows(MARKS)
    read = live.reader(0)
    read({})
    read({FIRST: 6})
    live.replace({FIRST: 4, 0x51ABCDEF: 7})
    assert read({FIRST: 6}) == {FIRST: 4, SECOND: 0, MARKS[2]: 0}


def test_marks_that_are_not_counted_are_passed_over() -> None:
    """A backend that left the file may still have connections; a count is never below zero."""
    live = LiveFlows([FIRST])
    live.change(SECOND, 1, 0)
    live.change(FIRST, 0, 1)
    assert live.read() == {FIRST: 0}
    assert live.reader(0)({SECOND: 5}) == {FIRST: 0}


def test_what_one_process_counts_another_reads() -> None:
    """The memory is shared by processes that were forked before or after."""
    live = LiveFlows(MARKS)
    pid = os.fork()
    if pid == 0:
        live.change(MARKS[2], 42, 1)
        live.change(MARKS[2], 1, 0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert live.read()[MARKS[2]] == 42


def test_what_a_strategy_asks_for_is_counted_the_rest_is_listed() -> None:
    """The backends of weighted and of policies are counted, where they are offloaded; the others
    are listed, and those of another forward are none's.
    """
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1", "10.0.0.2"]}
    named = {
        "a": {"strategy": "weighted", "forward": "offload"},
        "b": {"strategy": "my.module:Class", "forward": "offload"},
        "c": {"strategy": "wrr", "forward": "offload"},
        "d": {"strategy": "weighted", "forward": "nat"},
    }
    services = [{"name": name, **base, **keys} for name, keys in named.items()]
    config = Config.model_validate({"services": services})
    counted, listed = wanted(config, 2)
    assert counted is not None
    assert listed is not None
    marks = backend_marks(config)
    assert counted.marks == {*marks["a"], *marks["b"]}
    assert listed.marks == {*marks["c"]}
    listed.replace({marks["c"][1]: 5, 0x51000001: 7})
    assert listed.read() == {marks["c"][0]: 0, marks["c"][1]: 5}
    assert wanted(Config.model_validate({"services": services[:2]}), 2)[1] is None
    assert wanted(Config.model_validate({"services": services[3:]}), 2) == (None, None)
