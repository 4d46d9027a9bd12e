"""A packet path that becomes that of another configuration: flows stay, new ones go by the new."""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.strategies import STRATEGIES
from paraglider.core.verdict import MARK, PASS, REWRITTEN
from paraglider.daemon.store.backends import BackendTable
from paraglider.daemon.store.store import Desired
from paraglider.forward.dsr.marks import route_marks
from paraglider.forward.flows import Match
from paraglider.forward.worker_datapath import WorkerDatapath, build, kind_of
from paraglider.netfilter.rules.marks import backend_marks

DSR = {"forward": "dsr", "vip": "192.168.0.12/24"}
OFFLOAD = {"forward": "offload"}
A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def config(*services: dict[str, Any], **top: Any) -> Config:
    """A configuration of these services on the same VIP, from port 80 on; two backends each."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp"}
    whole = [
        {"name": f"s{i}", **base, "ports": 80 + i, "backends": [A, B], **s}
        for i, s in enumerate(services)
    ]
    return Config.model_validate({"services": whole, **top})


def segment(
    path: WorkerDatapath, client: int, port: int = 80, flags: int = 2, vip: int = 11
) -> str | int:
    """The backend's address for a segment from the client's port, or the verdict."""
    addresses = bytes((192, 168, 0, 100, 192, 168, 0, vip))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, TCP, 0) + addresses
    ports = struct.pack("!HHIIBBHHH", client, port, 0, 0, 0x50, flags, 0, 0, 0)
    packet = bytearray(head + ports)
    verdict = path.handle(packet, 0, len(packet), 0, 1.0)
    return str(ipaddress.ip_address(bytes(packet[16:20]))) if verdict == REWRITTEN else verdict


def reply(path: WorkerDatapath, backend: str, port: int, client: int) -> tuple[str, int]:
    """Whom a backend's segment to the client's port comes from, when it has been rewritten."""
    addresses = ipaddress.ip_address(backend).packed + bytes((192, 168, 0, 100))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, TCP, 0) + addresses
    packet = bytearray(head + struct.pack("!HHIIBBHHH", port, client, 0, 0, 0x50, 16, 0, 0, 0))
    assert path.handle(packet, 0, len(packet), 0, 1.0) == REWRITTEN
    return str(ipaddress.ip_address(bytes(packet[12:16]))), int.from_bytes(packet[20:22], "big")


class World:
    """A path, and the configuration that it is for."""

    def __init__(self, first: Config) -> None:
        self.config = first
        self.path = build(first, 0, 0.0)

    def apply_config(self, wanted: Config) -> None:
        """Another configuration."""
        self.path.apply_config(wanted, self.config, 0, STRATEGIES)
        self.config = wanted

    def open(self, *clients: int, port: int = 80, vip: int = 11) -> list[str | int]:
        """The backends of the first packets of these clients."""
        return [segment(self.path, client, port, 2, vip) for client in clients]

    def again(self, *clients: int, port: int = 80, vip: int = 11) -> list[str | int]:
        """The backends of further packets of these clients."""
        return [segment(self.path, client, port, 16, vip) for client in clients]


def test_flows_keep_their_backends_and_new_ones_go_by_the_new() -> None:
    """After a change of the strategy, the list of backends or a weight."""
    world = World(config({}))
    before = world.open(1, 2, 3)
    assert before == [A, B, A]
    world.apply_config(config({"strategy": "wrr", "backends": [{"address": A, "weight": 0}, C, B]}))
    world.path.apply_states({"s0": {A: ("ready", 0), B: ("ready", 1), C: ("ready", 1)}})
    assert world.again(1, 2, 3) == before
    assert Counter(world.open(*range(10, 20))) == {B: 5, C: 5}
    assert world.path.flows == 13


def test_a_backend_that_left_keeps_its_flows() -> None:
    """They are also reported by the service's name."""
    world = World(config({}))
    assert world.open(1, 2) == [A, B]
    world.apply_config(config({"backends": [B]}))
    assert world.again(1, 2) == [A, B]
    assert world.open(3, 4) == [B, B]
    view = world.path.view
    assert view is not None
    flows = [flow for flow in view.walk(Match(service="s0")) if flow is not None]
    assert sorted(view.describe(flow, 1.0)["backend"] for flow in flows) == [A, B, B, B]


def test_what_has_not_changed_is_the_same_object() -> None:
    """An unchanged service among changed ones, and unchanged parts of a changed one: turns
    continue.
    """
    world = World(config({}, {}))
    first, second = world.path.services
    assert world.open(1) == [A]
    world.apply_config(config({"drain_timeout": 9}, {}))
    changed, same = world.path.services
    assert same is second
    assert changed is not first
    assert changed.pool.backends == first.pool.backends
    assert changed.strategy is first.strategy
    assert changed.translations == first.translations
    assert changed.pool.drain_timeout == 9
    assert world.open(2) == [B]


def test_ports_that_are_swapped() -> None:
    """Old flows keep the port they were opened to, both ways; new flows use the new file."""
    first = {"backends": [{"address": A, "port": 8080}]}
    second = {"backends": [{"address": B, "port": 8081}]}
    world = World(config(first, second))
    assert (world.open(1, port=80), world.open(2, port=81)) == ([A], [B])
    wanted = config({**first, "ports": 81}, {**second, "ports": 80})
    pools = BackendTable(world.config, 0.0)
    after = Desired(world.config).replaced(wanted)
    pools.apply_config(after.config, 1.0, after.keys)
    world.apply_config(after.config)
    world.path.apply_states(pools.states())
    assert (world.again(1, port=80), world.again(2, port=81)) == ([A], [B])
    for backend, port, client, vip_port in ((A, 8080, 1, 80), (B, 8081, 2, 81)):
        assert reply(world.path, backend, port, client) == ("192.168.0.11", vip_port)
    assert (world.open(3, port=80), world.open(4, port=81)) == ([B], [A])


def test_services_come_and_go() -> None:
    """The last one's flows go on."""
    world = World(config({}, {}))
    assert world.open(1, port=81) == [A]
    assert world.open(1, port=82) == [PASS]
    world.apply_config(config({}, {"name": "other", "ports": 82}))
    assert world.open(2, port=82) == [A]
    assert world.open(2, port=81) == [PASS]
    assert world.again(1, port=81) == [A]


def test_clients_keep_their_backends() -> None:
    """The affinity table is kept, with the limits of the new file."""
    client = {"affinity": "client"}
    world = World(config(client))
    (first,) = world.open(1)
    world.apply_config(config({**client, "backends": [C, B, A]}, timeouts={"affinity": 5}))
    assert set(world.open(*range(10, 20))) == {first}


def test_timeouts_are_the_new_ones() -> None:
    """Also for existing flows."""
    world = World(config({}, timeouts={"syn": 100}))
    world.open(1)
    world.apply_config(config({}, timeouts={"syn": 1000}))
    world.path.expire(200.0, 100)
    assert world.path.flows == 1
    world.path.expire(2000.0, 100)
    assert world.path.flows == 0


def test_marks_of_offload() -> None:
    """A repeated SYN gets its backend again, unless that has left."""
    world = World(config(OFFLOAD))
    first, second = (MARK | mark << 8 for mark in backend_marks(world.config)["s0"])
    assert world.open(1, 2) == [first, second]
    world.apply_config(config({**OFFLOAD, "backends": [B, C]}))
    third = MARK | backend_marks(world.config)["s0"][1] << 8
    assert world.open(2) == [second]
    assert set(world.open(1, 3, 4, 5)) == {second, third}


def test_marks_of_dsr() -> None:
    """Flows to removed backends keep their mark; a VIP that becomes dsr's belongs to no other
    method.
    """
    other = {**DSR, "vip": "192.168.0.13/24", "ports": 80}
    world = World(config(DSR))
    old = route_marks(world.config, 4)
    before = world.open(1, 2, vip=12)
    assert len(set(before)) == 2
    world.apply_config(config({**DSR, "backends": [B, C]}, other))
    marks = {str(address): mark for address, mark in route_marks(world.config, 4).items()}
    assert [v & ~(1 << 30) for v in map(int, world.again(1, 2, vip=12))] == [
        v & ~(1 << 30) for v in map(int, before)
    ]
    assert set(world.open(5, 6, 7, vip=12)) == {MARK | marks[b] << 8 for b in (B, C)}
    assert set(world.open(5, 6, vip=13)) == {MARK | marks[b] << 8 for b in (A, B)}
    assert len(old) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (config({}), config({}, OFFLOAD), True),
        (config(OFFLOAD), config({}, OFFLOAD), False),
        (config(OFFLOAD), config(OFFLOAD, OFFLOAD), True),
        (config(DSR), config(DSR, {}), False),
        (config(DSR, {}), config(DSR, {}, OFFLOAD), False),
        (config(DSR), config({}), False),
    ],
)
def test_kinds(one: Config, other: Config, same: bool) -> None:
    """A path takes a configuration that needs the same of its queue and of its tables."""
    assert (kind_of(one) == kind_of(other)) == same
    assert same == (build(one, 0, 0.0).head == build(other, 0, 0.0).head) or "dsr" in kind_of(one)
