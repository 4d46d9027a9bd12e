"""The program skips its maps of flows for services by hash, once no flow has an entry."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from bpf_world import MemoryMap
from packets import FAMILIES, Family, backend, packed
from packets import service as service_of

from paraglider.bpf.decisions import Decisions
from paraglider.bpf.layout import DECISION, DECISIONS, INDEX, ROW_SLOTS, SERVICE, SLOT, STEERING
from paraglider.config.model import Config
from paraglider.core import strategies
from paraglider.core.flow import TCP
from paraglider.core.service import VirtualService
from paraglider.core.siphash import siphash13
from paraglider.core.strategies.base import NewFlow
from paraglider.forward.bpf.deciding import ENTRIES_INTERVAL, KernelDecisions
from paraglider.forward.bpf.slot_names import slot_name
from paraglider.forward.services import make_services

BY_HASH = {"forward": "dsr", "strategy": "maglev", "decide": "hash", "carrier": "bpf"}
AUTO = {**BY_HASH, "decide": "auto"}


class World:
    """A writer of decisions about a service; ``entries`` are those of flows."""

    def __init__(self, service: dict[str, str]) -> None:
        records, tables = (
            bytearray(DECISIONS * DECISION.size),
            bytearray(8192 * ROW_SLOTS * SLOT.size),
        )
        self.steering = MemoryMap(INDEX.size, STEERING.size, 2)
        self.decisions = Decisions(
            MemoryMap(SERVICE.size, INDEX.size, 10), self.steering, records, tables
        )
        self.entries, self.asked = 0, 0
        self.writer = KernelDecisions(self.decisions, 7, lambda _: 0, self.no_entries)
        self.write(service)

    def no_entries(self) -> bool:
        """Whether there are none."""
        self.asked += 1
        return not self.entries

    def write(self, service: dict[str, str]) -> None:
        """Have the program decide for ``service``."""
        one = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
        config = Config.model_validate({"services": [{**one, "backends": ["10.0.0.1"], **service}]})
        (made,) = make_services(config, lambda _: True, 0, strategies.STRATEGIES)
        assert isinstance(made, VirtualService)
        for translation in made.translations.values():
            translation.slot = 1
        self.writer.set_config(config, 1)
        self.writer.configure([made])

    def skips(self) -> bool:
        """Whether the program skips the maps."""
        index = self.decisions.claim(slot_name("web", b"decision"))
        assert index is not None
        return self.decisions.without_flows(index)


def test_as_soon_as_no_flow_has_an_entry() -> None:
    """Which is asked now and then, until it is so."""
    world = World(BY_HASH)
    world.entries = 1
    world.writer.sync(1.0)
    world.entries = 0
    world.writer.sync(1.0 + ENTRIES_INTERVAL / 2)
    assert (world.skips(), world.asked) == (False, 1)
    world.writer.sync(1.0 + ENTRIES_INTERVAL)
    world.writer.sync(1.0 + 2 * ENTRIES_INTERVAL)
    assert (world.skips(), world.asked) == (True, 2)


def test_not_before_the_table_is_written() -> None:
    """Until no worker is busy, flows that had no entry may get one."""
    world = World(BY_HASH)
    world.writer.sync(1.0, busy=True)
    assert (world.skips(), world.asked) == (False, 0)
    world.writer.sync(2.0)
    assert world.skips()


def test_only_where_flows_get_no_entries() -> None:
    """A service by hash that was decided otherwise before has to wait too."""
    world = World(AUTO)
    world.writer.sync(1.0)
    assert (world.skips(), world.asked) == (False, 0)
    world.entries = 1
    world.write(BY_HASH)
    world.writer.sync(2.0)
    assert (world.skips(), world.asked) == (False, 1)
    world.write(AUTO)
    world.entries = 0
    world.writer.sync(20.0)
    assert not world.skips()


@pytest.mark.parametrize("entries", [0, 1])
def test_switched_off_and_on(entries: int) -> None:
    """The workers' flows of that time may have entries."""
    world = World(BY_HASH)
    world.writer.sync(1.0)
    assert world.skips()
    world.writer.enable(False)
    assert not world.skips()
    world.entries = entries
    world.writer.enable(True)
    world.writer.sync(2.0)
    assert world.skips() is not bool(entries)


def test_the_vips_are_in_the_steering() -> None:
    """As bits: the lower five of the XOR of the bytes of an address say which."""
    for service, bits in ((BY_HASH, 1 << ((192 ^ 168 ^ 0 ^ 11) & 31)), (AUTO, 0)):
        value = World(service).steering.get(INDEX.pack(0))
        assert value is not None
        assert STEERING.unpack(value) == (7, 1, bits)


@pytest.mark.parametrize("strategy", ["maglev", "source"])
@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_adoption_agrees_with_the_kernels_table(family: Family, strategy: str) -> None:
    """For any flow, the entry by which the program picks is the backend that adopts its segments.
    (``tests/bpf`` compares the program's hash with this one.)
    """
    backends = [
        backend(address, weight=weight)
        for address, weight in zip(family.backends, (1, 3, 2), strict=True)
    ]
    made = service_of(family, strategy=strategy, backends=backends)
    table = made.strategy.kernel_table(lambda _: 0, 0)
    assert made.adoption is not None
    found: Counter[str] = Counter()
    chance = random.Random(7)
    size = len(packed(family.vip))
    for _ in range(300):
        key = chance.randbytes(size) + packed(family.vip) + chance.randbytes(2) + b"\0\x50"
        hashed = key[:size] if made.strategy.kernel_pick == "client" else key
        entry = siphash13(*table.hash_key, hashed) % len(table.entries)
        adopted = made.adoption.pick(NewFlow(TCP, key, 0.0))
        assert adopted is table.backends[table.entries[entry]]
        found[adopted.name] += 1
    assert len(found) == 3
