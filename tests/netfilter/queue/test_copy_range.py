"""How many bytes of a packet the queues of a worker copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.packet import COPY
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.nat.long import TABLE
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.netfilter.queue.base import LONGEST_PACKET
from paraglider.netfilter.queue.copy_range import INTERVAL, CopyRange

FOUR = {"name": "four", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
SIX = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["2001:db8:1::1"]}
NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.255.255.254/8", "2001:db8:1::ff/64"]},
}


def config(*services: dict[str, Any]) -> Config:
    """A configuration."""
    return Config.model_validate({"network": NETWORK, "services": services})


def path(*services: dict[str, Any]) -> WorkerDatapath:
    """A worker's packet path."""
    return build(config(*services), 0, 0.0)


class Tables:
    """The kernel's tables, by family."""

    def __init__(self, *families: int) -> None:
        self.families = set(families)
        self.asked = 0

    def __call__(self, family: int, name: str) -> bool:
        """Whether there is a table."""
        assert name == TABLE
        self.asked += 1
        return family in self.families


@pytest.mark.parametrize(
    ("families", "size"), [((4, 6), COPY), ((4,), LONGEST_PACKET), ((), LONGEST_PACKET)]
)
def test_heads_are_enough_with_the_tables_of_all_families(
    families: tuple[int, ...], size: int
) -> None:
    """A family without its table needs whole packets, and all families share the queues."""
    assert CopyRange(path(FOUR, SIX), Tables(*families)).size == size


def test_a_method_that_needs_whole_packets() -> None:
    """Tables of another method do not help it, and are not looked up."""
    tables, now = Tables(4, 6), 100.0
    copy = CopyRange(SimpleNamespace(head=None, whole=True, long_tables=[(4, TABLE)]), tables)
    copy.tick(lambda size: pytest.fail(f"told {size}"), now)
    assert (copy.size, tables.asked) == (LONGEST_PACKET, 0)


def test_a_method_with_a_queue_of_its_own_does_not_count() -> None:
    """The kernel splits long packets for the queue of tunnels; the others copy heads beside it."""
    assert CopyRange(path(FOUR, {**SIX, "forward": "tunnel"}), Tables(4, 6)).size == COPY


def test_tables_that_go_and_come_back() -> None:
    """The queues are told once a change, at most an interval later."""
    tables = Tables(4)
    copy = CopyRange(path(FOUR), tables)
    told: list[int] = []
    copy.tick(told.append, 1.0)
    assert told == []
    tables.families.clear()
    copy.tick(told.append, 1.0 + INTERVAL / 2)
    assert told == []
    copy.tick(told.append, 1.0 + INTERVAL)
    copy.tick(told.append, 1.0 + 2 * INTERVAL)
    assert told == [LONGEST_PACKET]
    tables.families.add(4)
    copy.tick(told.append, 1.0 + 3 * INTERVAL)
    assert told == [LONGEST_PACKET, COPY]


def test_a_reload_brings_another_family() -> None:
    """Its table counts from then on."""
    before, after = config(FOUR), config(FOUR, SIX)
    made = path(FOUR)
    copy = CopyRange(made, Tables(4))
    assert copy.size == COPY
    made.apply_config(after, before, 0, STRATEGIES)
    told: list[int] = []
    copy.tick(told.append, 1.0)
    assert told == [LONGEST_PACKET]


def test_methods_that_read_heads_only_ask_for_no_table() -> None:
    """Their queues never copy more than the head."""
    tables = Tables()
    made = path(FOUR | {"forward": "offload"})
    copy = CopyRange(made, tables)
    copy.tick(list[int]().append, 1.0)
    assert (copy.size, tables.asked) == (made.head, 0)
