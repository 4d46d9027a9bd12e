"""From the configuration to the packet path of tunnels."""

from __future__ import annotations

from typing import Any

from bpf_world import MemoryRing, entries, memory_maps
from packets import V4

from paraglider.bpf.layout import INDEX, TRANSLATION, TUNNEL
from paraglider.config.model import Config
from paraglider.core import flow
from paraglider.core.balancer import Balancer
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import STRATEGIES
from paraglider.core.verdict import MARK
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.datapath import DatapathContext
from paraglider.forward.services import make_services
from paraglider.forward.tunnel.build import build as build_tunnels
from paraglider.forward.tunnel.carrier import TunnelCarrier
from paraglider.forward.tunnel.datapath import TunnelDatapath
from paraglider.forward.worker_datapath import WorkerDatapath, build

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
WEB |= {"forward": "tunnel", "backends": ["10.0.0.1", "10.0.0.2"]}


def config(*services: dict[str, Any], **changes: Any) -> Config:
    """A configuration of tunnel services, each with changes to WEB."""
    network = {"public": {"interface": "eth0"}}
    return Config.model_validate(
        {"network": network, "services": [{**WEB, **each} for each in services], **changes}
    )


def carrier_of(path: WorkerDatapath) -> TunnelCarrier:
    """The carrier of the tunnel services."""
    datapath = path._datapaths["tunnel"]
    assert isinstance(datapath, TunnelDatapath)
    assert isinstance(datapath.carrier, TunnelCarrier)
    return datapath.carrier


def test_ports_of_the_services() -> None:
    """Each service has its own encapsulation, also to the same backend; a reload changes it."""
    gue = {"name": "gue", "ports": 81, "encapsulation": {"type": "gue", "port": 19523}}
    wanted = config({}, gue)
    path = build(wanted, 0, 0.0)
    ports = [end.port for end in carrier_of(path).endpoints.values()]
    assert ports == [0, 0, 19523, 19523]
    after = config({"encapsulation": {"type": "gue"}}, gue)
    path.apply_config(after, wanted, 0, {})
    assert [end.port for end in carrier_of(path).endpoints.values()] == [6080, 6080, 19523, 19523]


def test_bpf_carries() -> None:
    """In its outer header, from the packet that proves the client on; not with `worker`."""
    wanted = config(
        {"protocol": "udp"},
        {"name": "gue", "ports": 81, "protocol": "udp", "encapsulation": {"type": "gue"}},
        {"name": "by-worker", "ports": 82, "protocol": "udp", "carrier": "worker"},
    )
    maps = memory_maps()
    services = make_services(wanted, lambda _: True, 0, STRATEGIES)
    place = DatapathContext(
        wanted, 0.0, Balancer(ServiceMap(services)), bpf=BpfContext(maps, MemoryRing())
    )
    built = build_tunnels(place)
    built.configure(wanted, services)
    carrier = built.datapath.carrier
    assert isinstance(carrier, BpfCarrier)
    carrier.sync(0.0)
    for service, port in zip(services, (0, 6080, -1), strict=True):
        for translation in service.translations.values():
            value = maps.translations.get(INDEX.pack(translation.slot))
            assert (value is None) == (port < 0)
            if value is not None:
                found = TRANSLATION.unpack(value)
                assert found[3] == port.to_bytes(2, "big")
                assert found[5] == TUNNEL
    for number, entered in ((80, 1), (81, 2), (82, 2)):
        for _ in range(2):
            packet = bytearray(V4.datagram(number))
            verdict = built.datapath.handle(packet, 0, len(packet), 0, 1.0)
            assert verdict & 0xFF == MARK
        assert len(entries(maps.flows[flow.UDP, 4])) == entered


def test_whole_packets_that_fit_a_link() -> None:
    """Tunnels have a queue of their own for them; what other methods need of a packet stays."""
    path, other = build(config({}), 0, 0.0), build(config({"forward": "nat"}), 0, 0.0)
    assert (path.splits, other.splits) == (True, False)
    assert path.head is not None
    beside = {"forward": "nat", "vip": "192.168.0.12/24"}
    both = build(config({}, beside), 0, 0.0)
    assert both.splits
    assert (both.head, both.whole, both.long_tables) == (
        *(other.head, other.whole, other.long_tables),
    )


def test_the_bound_and_the_timeouts() -> None:
    """Of the flow table, from the file."""
    path = build(config({}, flows={"max": 7}, timeouts={"udp": 9}), 0, 0.0)
    table = path.tables["tunnel"]
    assert table.bound == 7
    assert 9 in table.timeouts.by_state
