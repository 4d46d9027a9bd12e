"""The packet path of a worker: its methods, its needs of the queue, its reports."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.tracing import Decision
from paraglider.core.verdict import DROP, MARK, PASS, REWRITTEN
from paraglider.forward.datapath import HEAD
from paraglider.forward.dsr.marks import route_marks
from paraglider.forward.offload.carrier import ConntrackCarrier
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.netfilter.rules.marks import backend_marks


def config(*services: dict[str, Any]) -> Config:
    """A configuration of these services, each on a port of its own."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp"}
    whole = [
        {"name": f"s{i}", **base, "ports": 80 + i, "backends": [f"10.0.{i}.1", f"10.0.{i}.2"], **s}
        for i, s in enumerate(services)
    ]
    return Config.model_validate({"services": whole})


def syn(port: int, client_port: int = 40000) -> bytearray:
    """The first segment of a connection to the VIP; its checksums do not matter here."""
    addresses = ipaddress.ip_address("192.168.0.100").packed
    addresses += ipaddress.ip_address("192.168.0.11").packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, TCP, 0) + addresses
    return bytearray(head + struct.pack("!HHIIBBHHH", client_port, port, 0, 0, 0x50, 2, 0, 0, 0))


def handled(path: WorkerDatapath, port: int, client_port: int = 40000) -> int:
    """The verdict for a SYN."""
    packet = syn(port, client_port)
    return path.handle(packet, 0, len(packet), 0, 1.0)


OFFLOAD = {"forward": "offload"}


def test_offload_alone_needs_heads() -> None:
    """It has no table of flows; the marks are those that the set-up puts into the kernel."""
    wanted = config(OFFLOAD, OFFLOAD)
    path = build(wanted, 0, 0.0)
    assert path.head == HEAD
    marks = backend_marks(wanted)
    assert handled(path, 80) == MARK | marks["s0"][0] << 8
    assert handled(path, 81) == MARK | marks["s1"][0] << 8
    assert path.flows == 0


def test_nat_alone_needs_packets() -> None:
    """Whole ones, to be rewritten."""
    path = build(config({}, {}), 0, 0.0)
    assert path.head is None
    assert handled(path, 80) == REWRITTEN
    assert path.flows == 1


def test_both_in_one_queue() -> None:
    """Whole packets are queued; each service is handled by its method, in any order of the file."""
    wanted = config({}, OFFLOAD, {})
    path = build(wanted, 0, 0.0)
    assert path.head is None
    assert [handled(path, port) for port in (80, 81, 82)] == [
        REWRITTEN,
        MARK | backend_marks(wanted)["s1"][0] << 8,
        REWRITTEN,
    ]
    assert path.flows == 2
    assert [service.name for service in path.services] == ["s0", "s1", "s2"]


def test_tables() -> None:
    """The worker's own flow tables by name, and how many flows could not be written down."""
    assert build(config(OFFLOAD), 0, 0.0).tables == {}
    path = build(config({}, OFFLOAD), 0, 0.0)
    assert list(path.tables) == ["nat"]
    memory = bytearray(size_of(1))
    write_header(memory, 1, bytes(16))
    path.tables["nat"].journal = Journal(memory)
    handled(path, 80)
    handled(path, 80, 40001)
    assert (path.flows, path.counts()) == (2, {"unwritten": 1})


@pytest.mark.parametrize("forwards", [("nat", "nat"), ("nat", "offload"), ("offload", "offload")])
def test_every_new_flow_is_reported(forwards: tuple[str, ...]) -> None:
    """For any method."""
    path = build(config(*({"forward": forward} for forward in forwards)), 0, 0.0)
    told: list[Decision] = []
    path.trace(told.append)
    for port in (80, 81):
        handled(path, port)
    assert [(d.service, d.protocol, d.key[-2:], d.backend.name, d.why) for d in told] == [
        ("s0", TCP, b"\0\x50", "10.0.0.1", "rr, of 2 ready"),
        ("s1", TCP, b"\0\x51", "10.0.1.1", "rr, of 2 ready"),
    ]


def test_counts_of_both_are_one() -> None:
    """Refused packets of both are counted by reason; zeros are left out."""
    nobody = {"backends": [{"address": "10.0.1.1", "weight": 0}], "all_down": "use_all"}
    path = build(config({}, {**OFFLOAD, **nobody}), 0, 0.0)
    assert path.counts() == {}
    handled(path, 99)
    handled(path, 81)
    assert path.counts() == {"no_service": 1, "no_backend": 1}


def test_time_passes_for_both() -> None:
    """Flows, stored decisions and clients with affinity all expire."""
    path = build(config({"affinity": "client"}, {**OFFLOAD, "affinity": "client"}), 0, 0.0)
    handled(path, 80)
    handled(path, 81)
    assert path.flows == 1
    carrier = path._datapaths["offload"].carrier
    assert isinstance(carrier, ConntrackCarrier)
    assert len(carrier) == 1
    for now in (100_000.0, 200_000.0):
        path.expire(now, 100)
        assert path.sync(now) == []
    assert path.flows == 0
    assert len(carrier) == 0
    assert [len(s.affinity) for s in path.services if s.affinity is not None] == [0, 0]
    assert path.counts() == {"expired": 1}


DSR = {"forward": "dsr", "vip": "192.168.0.12/24"}


def to_dsr(path: WorkerDatapath, flags: int = 2, client_port: int = 40000) -> int:
    """The verdict for a segment to port 80 of the VIP of ``DSR``."""
    packet = syn(80, client_port)
    packet[16:20] = ipaddress.ip_address("192.168.0.12").packed
    packet[33] = flags
    before = bytes(packet)
    found = path.handle(packet, 0, len(packet), 0, 1.0)
    assert bytes(packet) == before
    return found


def test_dsr_alone_needs_heads() -> None:
    """It has its own flows."""
    wanted = config(DSR)
    path = build(wanted, 0, 0.0)
    first, second = route_marks(wanted, 4).values()
    assert path.head == HEAD
    assert [to_dsr(path), to_dsr(path, client_port=40001)] == [
        MARK | first << 8,
        MARK | second << 8,
    ]
    assert list(path.tables) == ["dsr"]
    assert path.flows == 2


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_dsr_beside_others(forward: str) -> None:
    """Its VIP selects it; packets of no service pass, and truncated ones get
    a verdict from either.
    """
    wanted = config(DSR, {"forward": forward})
    path = build(wanted, 0, 0.0)
    assert path.head == (None if forward == "nat" else HEAD)
    assert [service.name for service in path.services] == ["s1", "s0"]
    told: list[Decision] = []
    path.trace(told.append)
    assert to_dsr(path) & 0xFF == MARK
    assert handled(path, 81) == (
        REWRITTEN if forward == "nat" else MARK | backend_marks(wanted)["s1"][0] << 8
    )
    assert [(d.service, d.key[7]) for d in told] == [("s0", 12), ("s1", 11)]
    assert to_dsr(path, flags=4, client_port=50000) == DROP  # a RST of nobody's
    assert handled(path, 99) == PASS
    assert path.counts() == {"stray": 1, "no_service": 1}
    for length in range(60):
        for first in (0x45, 0x60, 0x00):
            packet = bytearray([first]) + bytes(60)
            assert path.handle(packet, 0, length, 0, 1.0) in (PASS, DROP)
    path.expire(100_000.0, 100)
    assert path.flows == 0


def test_every_carrier_is_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A carrier with one way goes on as before."""
    path = build(config({}, OFFLOAD), 0, 0.0)
    switched: list[bool] = []
    monkeypatch.setattr(path._datapaths["nat"].carrier, "switch", switched.append)
    path.carry(False)
    path.carry(True)
    assert switched == [False, True]
    assert handled(path, 81) == MARK | backend_marks(config({}, OFFLOAD))["s1"][0] << 8
