"""Tests of ``paraglider.forward.bpf.slots``: the same for all, one write a change."""

from __future__ import annotations

from typing import Any

import pytest
from bpf_world import MemoryMap, memory_maps, web
from packets import V4, V6, backend, packed

from paraglider.bpf.layout import (
    DSR,
    INDEX,
    LOST_DATAGRAMS,
    LOST_FLOWS,
    NAT,
    ORIGIN,
    TRANSLATION,
    TUNNEL,
    UP,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Event
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.slot_names import slot_name
from paraglider.forward.bpf.slots import Slots

ONE, TWO = V4.backends[:2]


def placed(maps: CarrierMaps, *services: VirtualService) -> Slots:
    """The slots of a worker with ``services``, written."""
    slots = Slots(maps)
    slots.configure(services, ())
    slots.flush()
    return slots


def only(service: VirtualService) -> Translation:
    """The one translation of a service."""
    (translation,) = service.translations.values()
    return translation


def single(**changes: Any) -> VirtualService:
    """A service with one backend."""
    return web(**{"backends": [backend(ONE)], **changes})


def written(maps: CarrierMaps, index: int) -> tuple[Any, ...]:
    """What the program reads of a translation."""
    value = maps.translations.get(INDEX.pack(index))
    return () if value is None else TRANSLATION.unpack(value)


def state(maps: CarrierMaps, translation: Translation) -> int:
    """The state that the program reads."""
    found: int = written(maps, translation.slot)[6]
    return found


def origin(address: str, port: int, protocol: int = TCP, family: int = 4) -> bytes:
    """The key of an origin."""
    return ORIGIN.pack(packed(address), port.to_bytes(2, "big"), protocol, family)


def test_all_workers_use_the_same_places() -> None:
    """And so does the next daemon, with the maps of the last one: nothing is written anew."""
    maps, one, other = memory_maps(), web(), web()
    placed(maps, one)
    before = dict(maps.slots.content) if isinstance(maps.slots, MemoryMap) else {}
    placed(maps, other)
    pairs = [
        (one.translations[b], other.translations[c])
        for b, c in zip(one.pool.backends, other.pool.backends, strict=True)
    ]
    assert all(a.slot == b.slot > 0 for a, b in pairs)
    assert len({a.slot for a, _ in pairs}) == 2
    assert isinstance(maps.slots, MemoryMap)
    assert maps.slots.content == before
    assert all(
        maps.slots.content[INDEX.pack(a.slot)] == slot_name("web", a.identity) for a, _ in pairs
    )


def test_what_the_program_reads() -> None:
    """Addresses and ports as they stand in packets; ports only where they change."""
    maps = memory_maps()
    plain, six = single(), single(name="six", vip=V6.vip, backends=[backend(V6.backends[0])])
    mapped = single(name="mapped", backends=[backend(ONE, 8080)])
    placed(maps, plain, six, mapped)
    vip, address = packed(V4.vip) + bytes(12), packed(ONE) + bytes(12)
    assert written(maps, only(plain).slot)[:7] == (vip, address, bytes(2), bytes(2), 4, NAT, UP)
    assert written(maps, only(mapped).slot)[:7] == (
        vip,
        address,
        b"\0\x50",
        b"\x1f\x90",
        4,
        NAT,
        UP,
    )
    assert written(maps, only(six).slot)[:7] == (
        *(packed(V6.vip), packed(V6.backends[0]), bytes(2), bytes(2)),
        *(6, NAT, UP),
    )
    routed = single(name="routed", direct=True, routed=True)
    placed(maps, routed)
    assert written(maps, only(routed).slot)[:7] == (vip, address, bytes(2), bytes(2), 4, DSR, UP)


@pytest.mark.parametrize("port", [0, 6080])
def test_a_tunnel(port: int) -> None:
    """The backend's port is that of the outer header; a change of it is one write."""
    maps = memory_maps()
    service = single(direct=True, routed=True)
    only(service).outer_port = port
    slots = placed(maps, service)
    found = written(maps, only(service).slot)
    assert found[2:6] == (bytes(2), port.to_bytes(2, "big"), 4, TUNNEL)
    only(service).outer_port = 7
    slots.configure([service], ())
    slots.flush()
    assert written(maps, only(service).slot)[2:6] == (bytes(2), b"\0\x07", 4, TUNNEL)


def test_a_lost_backend_is_one_write() -> None:
    """However many flows it has; and one write brings it back."""
    maps, service = memory_maps(), web(life={"on_down": "reset"})
    slots = placed(maps, service)
    down, up = service.pool.backends
    assert isinstance(maps.translations, MemoryMap)
    for event, states in ((Event.CHECK_FAILED, (LOST_FLOWS, UP)), (Event.CHECK_PASSED, (UP, UP))):
        before = maps.translations.writes
        service.pool.apply(down, event)
        slots.flush()
        assert maps.translations.writes == before + 1
        assert tuple(state(maps, service.translations[b]) for b in (down, up)) == states
    slots.flush()
    assert maps.translations.writes == before + 1


def test_maintenance_ends_datagrams_alone() -> None:
    """Its TCP flows live on."""
    maps, service = memory_maps(), web()
    slots = placed(maps, service)
    first = service.pool.backends[0]
    service.pool.apply(first, Event.SET_MAINT)
    slots.flush()
    assert state(maps, service.translations[first]) == LOST_DATAGRAMS


def test_a_place_that_another_name_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is taken; without any the worker carries, which is counted."""
    monkeypatch.setattr("paraglider.forward.bpf.slots.MOST_PROBES", 3)
    maps, service = memory_maps(), single()
    translation = only(service)
    places = []
    for _ in range(3):
        assert placed(maps, service).unplaced == 0
        places.append(translation.slot)
        maps.slots.put(INDEX.pack(translation.slot), bytes(8))
        translation.slot = 0
    assert len({0, *places}) == 4
    assert placed(maps, service).unplaced == 1
    assert translation.slot == 0


def crowd(name: str, count: int) -> list[VirtualService]:
    """Services with 100 backends each, ``count`` backends in all."""
    return [
        web(
            name=f"{name}{number}",
            ports=((1000 + number, 1000 + number),),
            backends=[backend(f"10.{number >> 8}.{number & 255}.{n}") for n in range(100)],
        )
        for number in range(count // 100)
    ]


def test_translations_wait_for_places_that_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few free places the first get one, and the others later, in bounded steps."""
    monkeypatch.setattr("paraglider.forward.bpf.slots.TRANSLATIONS", 601)
    monkeypatch.setattr("paraglider.forward.bpf.slots.CHUNK", 50)
    maps = memory_maps(600)
    old, new = crowd("old", 500), crowd("new", 400)
    assert placed(maps, *old).unplaced == 0
    slots = placed(maps, *new)
    assert slots.unplaced == 300
    assert isinstance(maps.slots, MemoryMap)
    list(slots.place_waiting())
    assert slots.unplaced == 300
    for service in old[:2]:
        for translation in service.translations.values():
            maps.slots.delete(INDEX.pack(translation.slot))
    steps = 0
    calls = maps.slots.calls
    for _ in slots.place_waiting():
        assert maps.slots.calls - calls <= 50 + 1
        calls, steps = maps.slots.calls, steps + 1
    assert (slots.unplaced, steps) == (100, 400 // 50 + 300 // 50)
    slots.flush()
    found = [(s.ports[0][0], t) for s in new for t in s.translations.values() if t.slot]
    assert len({translation.slot for _, translation in found}) == 300
    for port, translation in found:
        assert state(maps, translation) == UP
        key = ORIGIN.pack(translation.backend.address, port.to_bytes(2, "big"), TCP, 4)
        assert maps.origins.get(key) == INDEX.pack(translation.slot)


def test_what_is_configured_anew_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it get a place of a service that is gone."""
    monkeypatch.setattr("paraglider.forward.bpf.slots.TRANSLATIONS", 201)
    maps = memory_maps(200)
    old, (gone,), (new,) = crowd("old", 200), crowd("gone", 100), crowd("new", 100)
    placed(maps, *old)
    slots = placed(maps, gone)
    assert slots.unplaced == 100
    placing = slots.place_waiting()
    next(placing)
    slots.configure([new], ())
    for service in old:
        for translation in service.translations.values():
            maps.slots.delete(INDEX.pack(translation.slot))
    list(placing)
    assert not any(translation.slot for translation in gone.translations.values())
    list(slots.place_waiting())
    assert slots.unplaced == 0
    assert all(translation.slot for translation in new.translations.values())


def test_an_origin_names_the_vip_of_replies() -> None:
    """By the backend's own port, for each protocol; the reply's VIP and port are the same for all
    flows, so no flow needs an entry for replies.
    """
    maps = memory_maps()
    plain, mapped = single(), single(name="m", ports=((81, 81),), backends=[backend(TWO, 8080)])
    placed(maps, plain, mapped)
    for key, service in (
        (origin(ONE, 80), plain),
        (origin(ONE, 80, UDP), plain),
        (origin(TWO, 8080), mapped),
    ):
        assert maps.origins.get(key) == INDEX.pack(only(service).slot)
        assert not only(service).aliased
    assert maps.origins.get(origin(TWO, 81)) is None


def test_a_backends_port_with_two_vips_has_one_origin() -> None:
    """The flows of the other VIP are aliased. Which one has it does not change while it is there:
    its flows have no alias.
    """
    maps = memory_maps()
    first, second = single(), single(name="second", vip=V4.other_vip)
    slots = placed(maps, first)
    slots.configure([second, first], ())
    assert maps.origins.get(origin(ONE, 80)) == INDEX.pack(only(first).slot)
    assert (only(first).aliased, only(second).aliased) == (False, True)
    slots.configure([second], ())
    assert maps.origins.get(origin(ONE, 80)) == INDEX.pack(only(second).slot)
    assert not only(second).aliased


def test_services_of_one_vip_share_origins() -> None:
    """TCP and UDP, or two ports that lead to one: only what replies become counts."""
    maps = memory_maps()
    tcp, udp = single(protocols=(TCP,)), single(name="udp", protocols=(UDP,))
    placed(maps, tcp, udp)
    assert not only(tcp).aliased
    assert not only(udp).aliased
    assert only(tcp).slot != only(udp).slot


@pytest.mark.parametrize(
    ("ports", "aliased"),
    [(((80, 143),), False), (((80, 144),), True), (ALL_PORTS, True), (((80, 80), (90, 90)), False)],
)
def test_services_with_many_ports_are_aliased(
    ports: tuple[tuple[int, int], ...], aliased: bool
) -> None:
    """Up to a bound every port has its origin."""
    maps, service = memory_maps(), single(ports=ports)
    placed(maps, service)
    assert only(service).aliased is aliased
    assert (maps.origins.get(origin(ONE, 80)) is None) is aliased


def test_flows_whose_answers_pass_elsewhere_need_neither() -> None:
    """`return: direct`."""
    maps, service = memory_maps(), single(direct=True)
    placed(maps, service)
    assert not only(service).aliased
    assert maps.origins.get(origin(ONE, 80)) is None


def test_a_service_that_BPF_may_not_carry_any_more() -> None:  # noqa: N802
    """One write gives its flows back to the worker, though its backend is up; and it may return."""
    maps, service = memory_maps(), single()
    slots = placed(maps, service)
    translation = only(service)
    index, translation.backend.flows = translation.slot, 1
    assert slots.configure((), [service])
    slots.flush()
    assert (translation.slot, written(maps, index)[6]) == (0, LOST_FLOWS)
    assert not slots.configure((), [service])
    slots.configure([service], ())
    slots.flush()
    assert (translation.slot, state(maps, translation)) == (index, UP)


def test_a_renamed_service_answers_for_its_older_places() -> None:
    """Its counters are those of its new name; its flows know the older place, which is told of a
    lost backend too.
    """
    maps, backends = memory_maps(), [backend(ONE)]
    before = web(backends=backends)
    slots = placed(maps, before)
    old = only(before).slot
    after = web(name="renamed", backends=backends, before=before)
    assert only(after) is only(before)
    slots.configure([after], ())
    slots.flush()
    assert only(after).slot != old
    assert slots.find(old) is slots.find(only(after).slot) is only(after)
    after.pool.apply(backends[0], Event.CHECK_FAILED)
    slots.flush()
    assert {written(maps, index)[6] for index in (old, only(after).slot)} == {LOST_FLOWS}


def test_removed_services_are_known_while_they_have_flows() -> None:
    """Their origins stay after that: other workers may still have flows."""
    maps, service = memory_maps(), single()
    slots = placed(maps, service)
    translation = only(service)
    translation.backend.flows = 1
    slots.configure((), ())
    assert slots.find(translation.slot) is translation
    translation.backend.flows = 0
    slots.configure((), ())
    assert slots.find(translation.slot) is None
    assert maps.origins.get(origin(ONE, 80)) == INDEX.pack(translation.slot)


def test_an_origin_of_a_removed_service_is_the_next_one_s() -> None:
    """Its own flows with that backend's port are carried by the workers from then on."""
    maps, gone, after = memory_maps(), single(), single(name="after", vip=V4.other_vip)
    slots = placed(maps, gone)
    slots.configure([after], ())
    assert maps.origins.get(origin(ONE, 80)) == INDEX.pack(only(after).slot)
    assert not only(after).aliased
