"""The memory of live flows: its users, its content, and its replacement."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.processes.child import Child
from paraglider.daemon.stats.live_counts import LiveCounts
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.offload.connection_counts import LiveFlows, counted_marks, listed_marks


def config(counted: int, listed: int) -> Config:
    """Offloaded services with these numbers of backends: one whose strategy needs live flows, one
    not.
    """
    common: dict[str, Any] = {"protocol": "tcp", "ports": 80, "forward": "offload"}
    some = [("counted", "leastconn", counted, 1), ("listed", "rr", listed, 2)]
    return Config.model_validate(
        {
            "services": [
                {
                    **common,
                    "name": name,
                    "vip": f"192.0.2.{net}/24",
                    "strategy": strategy,
                    "backends": [f"10.0.{net}.{1 + at}" for at in range(count)],
                }
                for name, strategy, count, net in some
                if count
            ]
        }
    )


def counts(before: Config) -> LiveCounts:
    """The memory for ``before``."""
    found = LiveCounts()
    found.counted = LiveFlows(counted_marks(before), 2)
    found.listed = LiveFlows(listed_marks(before), 0)
    return found


def test_it_is_the_trackers() -> None:
    """Found among the processes; without a conntrack counter there is none, and nothing to read."""
    live, listed = LiveFlows((1,)), LiveFlows((2,), 0)
    worker = Child(WorkerSpec(0, 0, config(1, 0), 1, 1, live=live))
    counter = Child(ConntrackCounterSpec(1, live, listed, 1, 1, "/"))
    found = LiveCounts([worker, counter])
    assert (found.counted, found.listed) == (live, listed)
    nothing = LiveCounts([worker])
    assert (nothing.counted, nothing.listed, nothing.read()) == (None, None, {})
    assert nothing.begin_anew(config(3, 3), 2) == set()


def test_both_are_read() -> None:
    """Live and closed flows of every mark, of those too that have none."""
    found = LiveCounts()
    found.counted, found.listed = LiveFlows((1, 2)), LiveFlows((3,), 0)
    found.counted.change(1, began=5, ended=2, closed=1)
    found.listed.replace({3: 7}, {3: 4})
    assert found.read() == {1: (3, 1), 2: (0, 0), 3: (7, 4)}


@pytest.mark.parametrize(
    ("after", "renewed"),
    [
        ((2, 2), set()),
        ((1, 1), set()),
        ((0, 2), set()),
        ((2, 3), {"conntrack counter"}),
        ((3, 2), {"conntrack counter", "worker"}),
        ((3, 3), {"conntrack counter", "worker"}),
    ],
)
def test_which_processes_are_restarted(after: tuple[int, int], renewed: set[str]) -> None:
    """Processes that write or read memory that was too small; large enough memory is kept."""
    found = counts(config(2, 2))
    counted, listed = found.counted, found.listed
    wanted = config(*after)
    assert found.begin_anew(wanted, 2) == renewed
    assert (found.counted is counted) is (after[0] <= 2)
    assert (found.listed is listed) is (after[1] <= 2)
    assert found.counted is not None
    assert found.listed is not None
    assert counted_marks(wanted) <= found.counted.marks
    assert listed_marks(wanted) <= found.listed.marks
    assert found.begin_anew(wanted, 2) == set()
