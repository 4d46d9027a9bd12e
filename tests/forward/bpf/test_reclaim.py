"""Tests of ``paraglider.forward.bpf.reclaim``: what nobody uses becomes free, and nothing else."""

from __future__ import annotations

import pytest
from bpf_world import MemoryCounters, MemoryMap, client_key, memory_maps, web, worker
from packets import backend

from paraglider.bpf.layout import INDEX, TRANSLATIONS
from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.flow_states import ESTABLISHED
from paraglider.core.service import VirtualService
from paraglider.core.strategies import STRATEGIES
from paraglider.errors import PlatformError
from paraglider.forward.bpf import slots as slots_module
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.reclaim import CHUNK, INTERVAL, QUARANTINE, SlotReclaimer, make_room
from paraglider.forward.bpf.slots import RETIRED, VERIFIED_WITHIN, Slots
from paraglider.forward.services import make_services


def used(maps: CarrierMaps) -> dict[bytes, bytes]:
    """Names of slots by index."""
    assert isinstance(maps.slots, MemoryMap)
    return maps.slots.content


def single(number: int, name: str = "web") -> VirtualService:
    """A service whose only backend is the one with ``number``."""
    return web(name=name, backends=[backend(f"10.0.{number >> 8}.{number & 255}")])


class Workers:
    """The first worker, which reclaims, and another one, with the same maps."""

    def __init__(self) -> None:
        self.maps = memory_maps()
        self.first, self.other = Slots(self.maps), Slots(self.maps)
        self.reclaimer = SlotReclaimer(self.maps, lambda: self.first.held)
        self.now = 0.0

    def configure(self, *services: VirtualService) -> None:
        """Give the first worker other services."""
        self.first.configure(services, ())
        self.first.flush()
        self.reclaimer.request()

    def run(self) -> int:
        """Run the task that is due; returns its number of steps."""
        task = self.reclaimer.next_task(self.now)
        return 0 if task is None else sum(1 for _ in task)

    def verify(self) -> None:
        """Let the time of a verification pass, with the other worker's ticks."""
        for _ in range(int(VERIFIED_WITHIN * 20)):
            self.other.verify()

    def reclaim(self) -> None:
        """Let a quarantine pass after a search for slots."""
        self.run()
        self.verify()
        self.now += QUARANTINE
        self.run()


def test_the_slot_of_a_removed_backend_becomes_free() -> None:
    """With its counters, its translation and its origin; those of others stay."""
    workers = Workers()
    kept, gone = single(1), single(2, "gone")
    workers.configure(kept, gone)
    (index,) = [t.slot for t in gone.translations.values()]
    assert isinstance(workers.maps.traffic, MemoryCounters)
    workers.maps.traffic.numbers_of[index] = 7
    origins = workers.maps.origins
    assert isinstance(origins, MemoryMap)
    lost = [key for key, value in origins.content.items() if value == INDEX.pack(index)]
    workers.configure(kept)
    workers.run()
    assert used(workers.maps)[INDEX.pack(index)] == RETIRED
    workers.now += QUARANTINE - 1
    assert workers.run() == 0
    workers.now += 1
    workers.run()
    assert list(used(workers.maps)) == [INDEX.pack(t.slot) for t in kept.translations.values()]
    assert not any(workers.maps.translations.get(INDEX.pack(index)) or b"x")
    assert workers.maps.traffic.total(index) == (0,)
    assert lost
    assert not any(key in origins.content for key in lost)


def test_a_slot_that_another_worker_holds_stays() -> None:
    """It puts its name back, whatever the first one has configured, and its origin stays; in the
    end it becomes free.
    """
    workers = Workers()
    gone = single(2, "gone")
    workers.configure(single(1))
    workers.other.configure([gone], ())
    (index,) = [t.slot for t in gone.translations.values()]
    name = used(workers.maps)[INDEX.pack(index)]
    origins = workers.maps.origins
    assert isinstance(origins, MemoryMap)
    workers.reclaim()
    assert used(workers.maps)[INDEX.pack(index)] == name
    assert INDEX.pack(index) in origins.content.values()
    workers.other.configure((), ())
    workers.now += INTERVAL
    workers.reclaim()
    assert INDEX.pack(index) not in used(workers.maps)
    assert INDEX.pack(index) not in origins.content.values()


@pytest.mark.parametrize("late", [False, True])
def test_a_slot_that_an_entry_names_stays(late: bool) -> None:
    """Also if the entry comes during the quarantine."""
    workers = Workers()
    gone = single(2, "gone")
    workers.configure(gone)
    (index,) = [t.slot for t in gone.translations.values()]
    workers.configure()
    if late:
        workers.run()
        workers.now += QUARANTINE
    workers.maps.flows[TCP, 4].put(client_key(1), FlowEntry(1, 0, slot=index).pack())
    workers.reclaim()
    assert INDEX.pack(index) in used(workers.maps)
    workers.maps.flows[TCP, 4].delete(client_key(1))
    workers.now += INTERVAL
    workers.reclaim()
    assert INDEX.pack(index) not in used(workers.maps)


def test_a_name_is_found_behind_a_slot_that_has_become_free() -> None:
    """A worker that starts later uses the same slot as the others."""
    workers = Workers()
    service = single(1)
    workers.configure(service)
    (place,) = used(workers.maps)
    name = used(workers.maps).pop(place)
    behind = INDEX.pack(1 + INDEX.unpack(place)[0])
    workers.maps.slots.put(behind, name)
    again = single(1)
    workers.other.configure([again], ())
    assert [INDEX.pack(t.slot) for t in again.translations.values()] == [behind]
    assert used(workers.maps) == {behind: name}


def test_every_step_is_bounded() -> None:
    """However many slots have become unused."""
    workers = Workers()
    workers.configure(*(single(number, f"s{number}") for number in range(1, 4 * CHUNK)))
    workers.configure()
    assert isinstance(workers.maps.slots, MemoryMap)
    for _ in range(2):
        task = workers.reclaimer.next_task(workers.now)
        assert task is not None
        steps, calls = 0, workers.maps.slots.calls
        for _ in task:
            assert workers.maps.slots.calls - calls <= 2 * CHUNK + 1
            steps, calls = steps + 1, workers.maps.slots.calls
        assert steps >= 4
        workers.now += QUARANTINE
    assert used(workers.maps) == {}


def test_a_host_whose_backends_change_daily_has_slots_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for seven; the first worker reclaims, another never does."""
    monkeypatch.setattr(slots_module, "TRANSLATIONS", 8)
    one, now = worker(single(1)), 0.0
    for day in range(2, 50):
        service = single(day)
        one.carrier.configure([service], ())
        for _ in range(3):
            one.settle(now)
            now += QUARANTINE
        (translation,) = service.translations.values()
        assert translation.slot
    assert len(used(one.maps)) <= 2
    assert one.carrier.counts() == {"carrier_refused": 0}
    other = worker(single(1), index=1, workers=2)
    other.carrier.configure((), ())
    for moment in range(5):
        other.settle(moment * QUARANTINE)
    assert len(used(other.maps)) == 1


def test_a_change_during_the_quarantine_is_not_forgotten() -> None:
    """The slots of services that are removed meanwhile are searched right after it."""
    workers = Workers()
    first, second = single(1, "first"), single(2, "second")
    workers.configure(first, second)
    workers.run()  # nothing is unused
    workers.configure(second)
    workers.run()
    workers.configure()
    workers.verify()
    workers.now += QUARANTINE
    workers.run()
    assert len(used(workers.maps)) == 1
    workers.reclaim()
    assert used(workers.maps) == {}


def many(name: str, services: int = 100, backends: int = 100) -> Config:
    """A configuration with 10,000 translations."""
    return Config.model_validate(
        {
            "services": [
                {
                    "name": f"{name}{number}",
                    "vip": "192.168.0.11/24",
                    "protocol": "tcp",
                    "ports": 1000 + number,
                    "backends": [f"10.0.{number}.{n}" for n in range(1, backends + 1)],
                }
                for number in range(services)
            ]
        }
    )


def made(config: Config) -> list[VirtualService]:
    """The services of a worker with ``config``."""
    return make_services(config, lambda _: True, 0, STRATEGIES)


def claimed(maps: CarrierMaps, config: Config) -> Slots:
    """The slots of a worker that begins with ``config``."""
    slots = Slots(maps)
    slots.configure(made(config), ())
    slots.flush()
    return slots


def test_all_services_are_exchanged_while_the_daemon_is_down() -> None:
    """10,000 slots for each of two files, of 16,384: the first file's become free before the
    second's are claimed, but for those that entries of flows refer to.
    """
    maps, before, after = memory_maps(20_000), many("old"), many("new")
    old = claimed(maps, before)
    assert (old.unplaced, len(used(maps))) == (0, 10_000)
    kept = sorted(old.held)[:3]
    for client, index in enumerate(kept):
        maps.flows[TCP, 4].put(client_key(client), FlowEntry(1, 0, slot=index).pack())
    make_room(maps, before)
    assert len(used(maps)) == 10_000
    make_room(maps, after)
    assert {INDEX.unpack(key)[0] for key in used(maps)} == set(kept)
    assert isinstance(maps.origins, MemoryMap)
    assert {INDEX.unpack(value)[0] for value in maps.origins.content.values()} == set(kept)
    new = claimed(maps, after)
    assert (new.unplaced, len(used(maps))) == (0, 10_003)
    assert not new.held & set(kept)


def test_with_room_enough_nothing_is_freed_at_the_start() -> None:
    """Backends that were removed may return; their flows are counted."""
    maps = memory_maps(20_000)
    claimed(maps, many("old", services=10))
    before = dict(used(maps))
    make_room(maps, many("new", services=100))
    assert used(maps) == before


def test_a_reload_that_exchanges_all_services() -> None:
    """With 10,000 translations before and after: those that find no index are carried by the
    worker until the old ones are free, and then by the program, with their flows.
    """
    before, after = many("old"), many("new")
    one = worker(*made(before), entries=20_000)
    assert one.carrier.slots.unplaced == 0
    services = made(after)
    one.carrier.configure(services, ())
    waiting = [t for s in services for t in s.translations.values() if not t.slot]
    assert len(waiting) == one.carrier.slots.unplaced == 10_000 - (TRANSLATIONS - 1 - 10_000)
    with pytest.raises(PlatformError, match=f"no place for a backend: {len(waiting)}"):
        one.carrier.sync(0.0)
    to, key = waiting[0], bytes(4) + waiting[0].vip + bytes(4)
    flow = one.flows.open(TCP, key, to.reverse_key(key), to, 0.0)
    one.flows.move(flow, ESTABLISHED, 0.0)
    assert not flow.carried
    now = 0.0
    for _ in range(10):
        one.settle(now)
        now += QUARANTINE / 2
    assert one.carrier.slots.unplaced == 0
    assert all(t.slot for s in services for t in s.translations.values())
    assert len(used(one.maps)) == 10_000
    assert flow.carried
