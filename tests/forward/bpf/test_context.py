"""Tests of ``paraglider.forward.bpf.context``: carriers of several methods in one worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from bpf_world import MemoryMap, MemoryRing, Program, Worker, client_key, entries, memory_maps, web
from journals import memory
from packets import V4

from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.config.service import METHODS
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP
from paraglider.core.journal import HEADER, Journal
from paraglider.core.restore import Translations, restore
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.compacting import AGE
from paraglider.forward.bpf.context import BpfContext, BpfResources, open_context, split
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.loads import SharedLoads


def started(maps: CarrierMaps, ring: MemoryRing) -> tuple[Worker, Worker]:
    """The carriers of nat and of dsr in one worker, each with a service of its own VIP."""
    program = Program(maps, {0: ring})
    nat = Worker([web()], maps, ring, program)
    routed = web(name="dsr", vip=V4.other_vip, direct=True, routed=True)
    dsr = Worker([routed], maps, ring, program, beside=nat)
    for each in (nat, dsr):
        each.carrier.sync(0.0)
    return nat, dsr


def datagrams(one: Worker, vip: str) -> None:
    """A UDP flow of the client to ``vip``, which the program carries."""
    key = client_key(1000, vip=vip)
    one.packet(UDP, key)
    one.packet(UDP, key)
    assert one.packet(UDP, key)


@pytest.fixture
def maps() -> CarrierMaps:
    """New maps in memory."""
    return memory_maps()


def test_entries_of_all_carriers_stay(maps: CarrierMaps) -> None:
    """A sweep of either leaves the flows of both, and removes an entry that no carrier knows."""
    nat, dsr = started(maps, MemoryRing())
    datagrams(nat, V4.vip)
    datagrams(dsr, V4.other_vip)
    udp = maps.flows[UDP, 4]
    udp.put(client_key(7), FlowEntry(0, 0, slot=999).pack())
    for each in (nat, dsr):
        each.carrier.switch(False)
        each.carrier.switch(True)
        assert len(entries(udp)) == 3
        each.settle(1.0)
        assert len(entries(udp)) == 2
        udp.put(client_key(7), FlowEntry(0, 0, slot=999).pack())
    assert (nat.carrier.carried, dsr.carrier.carried) == (1, 1)


def test_the_first_reads_the_events_of_all(maps: CarrierMaps) -> None:
    """There is one ring, and an event names a flow, not its method."""
    ring = MemoryRing()
    nat, dsr = started(maps, ring)
    flow = nat.open()
    dsr.carrier.sync(0.1)
    assert ring.events
    nat.carrier.sync(0.1)
    assert flow.state == states.ESTABLISHED
    assert not ring.events


def test_a_new_worker_adopts_the_flows_of_both(maps: CarrierMaps) -> None:
    """Each carrier those to its own translations, by one sweep over the maps."""
    for one, vip in zip(started(maps, MemoryRing()), (V4.vip, V4.other_vip), strict=True):
        datagrams(one, vip)
    nat, dsr = started(maps, MemoryRing())
    assert isinstance(maps.flows[TCP, 4], MemoryMap)
    for each in (nat, dsr):
        each.settle(0.5)
    for each, vip in ((nat, V4.vip), (dsr, V4.other_vip)):
        (key,) = each.flows.forward[UDP]
        assert key == client_key(1000, vip=vip)
        assert each.carrier.carried == 1


def test_services_are_split_by_the_configuration() -> None:
    """By `carrier`, which a service of another method than these does not have, and `decide`."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    keys: tuple[dict[str, str], ...] = (
        {"carrier": "bpf", "decide": "auto"},
        {"carrier": "worker"},
        {"carrier": "auto"},
        {"forward": "offload"},
    )
    config = Config.model_validate(
        {
            "services": [
                {"name": f"s{n}", "ports": 80 + n, **base, **each} for n, each in enumerate(keys)
            ]
        }
    )
    services = [web(name=f"s{n}") for n in range(4)]

    def names(found: object) -> list[str]:
        return [each.name for each in found if isinstance(each, VirtualService)]  # type: ignore[attr-defined]

    found = split(config, services)
    assert (names(found.carried), names(found.others)) == (["s0", "s2"], ["s1", "s3"])
    assert names(found.decided) == ["s0"]
    context = SimpleNamespace(lacks=frozenset({METHODS["nat"]}))
    found = split(config, services, cast(BpfContext, context))
    assert (names(found.carried), names(found.decided)) == ([], [])
    assert names(found.others) == ["s0", "s1", "s2", "s3"]


@pytest.mark.root
def test_the_ring_is_the_workers() -> None:
    """Of the maps' rings the one with its number; the first worker writes the decisions."""
    maps = CarrierMaps.create_for_test(16, 2)
    carried = BpfResources(maps, 2, 7, SharedLoads(2), frozenset({METHODS["tunnel"]}))
    context = open_context(carried, 1)
    assert (context.worker, context.workers, context.carriers) == (1, 2, [])
    assert context.ring.read(1) == []
    assert (context.decisions, context.lacks) == (None, {METHODS["tunnel"]})
    assert open_context(carried, 0).decisions is not None
    maps.close()


def test_the_second_carrier_finds_flows_whose_record_is_lost(maps: CarrierMaps) -> None:
    """Its journal was cut: the first carrier reads the entries for both."""
    nat, dsr = started(maps, MemoryRing())
    buffer = memory(1000)
    services = dsr.path.balancer.services.services
    restore(dsr.flows, Journal(buffer), Translations(services), 0.0)
    datagrams(dsr, V4.other_vip)
    for now in (1.0, AGE + 2.0):
        dsr.settle(now)
    assert dsr.compact
    buffer[HEADER:] = bytes(len(buffer) - HEADER)
    for compact in dsr.flows.compact:
        compact.step(1)
    assert (len(dsr.flows), dsr.carrier.carried) == (0, 0)
    for each in (nat, dsr):
        each.settle(20.0)
    assert (len(dsr.flows), dsr.carrier.carried) == (1, 1)
    dsr.check()
