"""Marks and hash tuples of the steering."""

from __future__ import annotations

import pytest

from paraglider.config.model import Service
from paraglider.netfilter.rules.steering import (
    MARK_BASE,
    MARK_MASK,
    Steering,
    steered_by_client,
    worker_mark,
    worker_queues,
)


def service(affinity: str) -> Service:
    """A service with this affinity."""
    return Service.model_validate(
        {
            "name": affinity,
            "vip": "192.168.0.11/24",
            "protocol": "tcp",
            "affinity": affinity,
            "backends": ["10.0.0.1"],
        }
    )


def test_marks_count_workers_not_cores() -> None:
    """Cores with gaps still have consecutive marks, since HMARK yields consecutive numbers."""
    assert Steering((1, 4, 9), 0).queues() == (
        (MARK_BASE, 1),
        (MARK_BASE + 1, 4),
        (MARK_BASE + 2, 9),
    )


def test_openings_have_queues_of_their_own() -> None:
    """The numbers of the openings' queues never collide with cores' numbers."""
    steering = Steering((0, 4095), 0)
    assert steering.openings() == ((MARK_BASE, 4096), (MARK_BASE + 1, 8191))
    assert steering.offloaded() == ((MARK_BASE, 8192), (MARK_BASE + 1, 12287))
    assert steering.tunnels() == ((MARK_BASE, 12288), (MARK_BASE + 1, 16383))
    assert worker_queues(4095) == (4095, 8191, 12287, 16383)


def test_every_mark_lies_under_the_mask() -> None:
    """A rule that matches the masked mark matches the last possible worker."""
    assert worker_mark(0xFFFF) & MARK_MASK == MARK_BASE


@pytest.mark.parametrize("index", [-1, 0x10000])
def test_a_worker_out_of_range_has_no_mark(index: int) -> None:
    """A mark never changes the bits that identify it as ours."""
    with pytest.raises(ValueError, match="has no mark"):
        worker_mark(index)


def test_requests_and_replies_hash_the_same_end() -> None:
    """The client is source in one direction and destination in the other; the rest is equal."""
    steering = Steering((0, 1), 0x1234)
    assert "src,sport " in steering.by_source()
    assert steering.by_source().replace("src,sport", "dst,dport") == steering.by_destination()


def test_by_client_leaves_the_ports_out() -> None:
    """With affinity all flows of a client go to the same worker."""
    steering = Steering((0, 1), 0x1234, by_client=True)
    assert "--hmark-tuple src " in steering.by_source()
    assert "--hmark-tuple dst " in steering.by_destination()


def test_one_service_with_affinity_decides_for_its_family() -> None:
    """A reply does not show its service, so all of the family are steered alike."""
    assert not steered_by_client((service("flow"),))
    assert steered_by_client((service("flow"), service("client")))
