"""Promises of the datapath and the carrier of every registered method."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.verdict import DROP, MARK, PASS, REASONS, REWRITTEN
from paraglider.daemon.shared_memory.counters import ROW
from paraglider.forward.base import ForwardMethod
from paraglider.forward.carrier import Carrier
from paraglider.forward.datapath import HEAD, Datapath
from paraglider.forward.registry import methods
from paraglider.forward.worker_datapath import WorkerDatapath, build

VIP, CLIENT = bytes((192, 168, 0, 11)), bytes((192, 168, 0, 100))
QUEUED = [method for method in methods() if method.queued]
each_method = pytest.mark.parametrize("method", QUEUED, ids=lambda method: method.name)


def config(method: ForwardMethod) -> Config:
    """One service of ``method`` with two backends."""
    service = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "ports": 80,
        "forward": method.name,
        "backends": ["10.0.0.1", "10.0.0.2"],
    }
    return Config.model_validate({"services": [service]})


def built(method: ForwardMethod) -> tuple[WorkerDatapath, Datapath, Carrier[Any]]:
    """A worker's packet path with the datapath and the carrier of ``method``."""
    path = build(config(method), 0, 0.0)
    datapath = path._datapaths[method.name]
    assert isinstance(datapath.carrier, Carrier)
    return path, datapath, datapath.carrier


def syn(port: int) -> bytearray:
    """The first segment of a connection from the client's ``port``."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, TCP, 0) + CLIENT + VIP
    return bytearray(head + struct.pack("!HHIIBBHHH", port, 80, 0, 0, 0x50, 2, 0, 0, 0))


def handle(path: WorkerDatapath, packet: bytearray) -> int:
    """The verdict for ``packet``."""
    return path.handle(packet, 0, len(packet), 0, 1.0)


@each_method
def test_decided_flows_are_carried(method: ForwardMethod) -> None:
    """Every new flow is reported once with its backend, and flows are spread over the backends; the
    verdict forwards the packet.
    """
    path, datapath, carrier = built(method)
    told: list[tuple[int, bytes, Backend]] = []
    datapath.opened = lambda *flow: told.append(flow)
    verdicts = [handle(path, syn(port)) for port in (1000, 1001, 1000)]
    assert [(protocol, key[-4:-2]) for protocol, key, _ in told] == [
        (TCP, (1000).to_bytes(2, "big")),
        (TCP, (1001).to_bytes(2, "big")),
    ]
    backends = [backend for *_, backend in told]
    assert backends == list(path.services[0].pool.backends)
    assert all(verdict == REWRITTEN or verdict & 0xFF == MARK for verdict in verdicts)
    assert sum(datapath.counts) == 0
    assert len(datapath.counts) == len(REASONS)
    for backend in backends:
        assert set(carrier.counters(backend)) <= set(ROW)
        assert (backend.conns, backend.flows + backend.opening) == (1, 1)
    assert {name for *_, counters in path.traffic() for name in counters} <= set(ROW)
    assert path.sync(2.0) == []


@each_method
def test_flows_of_a_table_end_on_request(method: ForwardMethod) -> None:
    """They are in the table that the method names, are carried since their last packet, and are no
    longer carried after they ended; other flows are ignored.
    """
    path, datapath, carrier = built(method)
    handle(path, syn(1000))
    assert (datapath.flows is not None) == method.journalled
    if datapath.flows is None:
        assert path.view is None
        return
    (flow,) = datapath.flows.forward[TCP].values()
    assert not datapath.flows.refresh(flow)
    assert (flow.seen, flow.carried) == (1.0, 0)
    verdict = carrier.install(flow)
    assert verdict == REWRITTEN or verdict & 0xFF == MARK
    assert path.view is not None
    assert path.view.forget(flow, 2.0)
    assert not path.view.forget(flow, 2.0)
    assert len(datapath.flows) == 0
    carrier.remove(flow)
    carrier.remove(Backend("stranger", bytes(4)))


@each_method
@given(packet=st.binary(max_size=100))
def test_no_bytes_raise(method: ForwardMethod, packet: bytes) -> None:
    """A packet that opens no flow passes or is dropped, and is counted."""
    path, datapath, _ = built(method)
    head = bytes([0x45, 0, 0, 40]) + packet
    assert handle(path, bytearray(head)) in (PASS, DROP)
    assert sum(datapath.counts) == 1


@each_method
def test_the_head_that_it_names_is_enough(method: ForwardMethod) -> None:
    """Bytes after the head are read only if the datapath needs the whole packet.

    A method with a queue of its own has whole packets there, and asks for none in the others.
    """
    path, _, _ = built(method)
    assert path.head == (method.head if method.merged else HEAD)
    if method.head is not None:
        packet = syn(1000) + bytes(1000)
        packet[2:4] = len(packet).to_bytes(2, "big")
        assert handle(path, packet[: method.head]) & 0xFF == MARK
