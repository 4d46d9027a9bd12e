"""From a configuration to the packet path: every relevant key has its effect."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP
from paraglider.core.strategies.rr import RoundRobin
from paraglider.core.strategies.weighted import LeastFlows
from paraglider.core.strategies.wrr import SmoothRoundRobin
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.worker_datapath import build as build_worker

VIP = {4: "192.168.0.11/24", 6: "2001:db8::11/64"}
BACKENDS = {4: ["10.0.0.1", "10.0.0.2"], 6: ["fd00:10::1", "fd00:10::2"]}


def service(family: int = 4, **changes: Any) -> dict[str, Any]:
    """A service as the file has it."""
    return {
        "name": "web",
        "vip": VIP[family],
        "protocol": "tcp",
        "ports": 80,
        "backends": BACKENDS[family],
        **changes,
    }


def build(*services: dict[str, Any], worker: int = 0, **top: Any) -> NatDatapath:
    """The packet path of the nat services of a configuration."""
    config = Config.model_validate({"services": list(services), **top})
    datapath = build_worker(config, worker, 100.0)._datapaths["nat"]
    assert isinstance(datapath, NatDatapath)
    return datapath


def found(path: NatDatapath, protocol: int, vip: str, port: int) -> str | None:
    """The name of the service that a packet is for."""
    address = ipaddress.ip_address(vip).packed
    got = path.balancer.services.find(protocol, address, port.to_bytes(2, "big"))
    return None if got is None else got.name


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_ports_and_backends(family: int) -> None:
    """The VIP, the ports and the backends in the order of the file, in both families."""
    path = build(service(family, ports=[80, "8000-8099"]))
    (built,) = path.balancer.services.services
    vip = VIP[family].partition("/")[0]
    assert built.vip == ipaddress.ip_address(vip).packed
    assert built.ports == ((80, 80), (8000, 8099))
    addresses = [ipaddress.ip_address(text).packed for text in BACKENDS[family]]
    assert [backend.address for backend in built.pool.backends] == addresses
    assert [found(path, TCP, vip, port) for port in (80, 8000, 8099)] == ["web"] * 3
    assert [found(path, TCP, vip, port) for port in (79, 7999, 8100)] == [None] * 3
    assert found(path, UDP, vip, 80) is None


@pytest.mark.parametrize(
    ("protocol", "family", "protocols"),
    [
        ("tcp", 4, {TCP}),
        ("udp", 6, {UDP}),
        ("any", 4, {TCP, UDP, ICMP}),
        ("any", 6, {TCP, UDP, ICMP6}),
    ],
)
def test_protocols(protocol: str, family: int, protocols: set[int]) -> None:
    """``any`` stands for TCP, UDP and the family's echo."""
    changes: dict[str, Any] = {"protocol": protocol}
    config = service(family, **changes)
    if protocol == "any":
        del config["ports"]
    (built,) = build(config).balancer.services.services
    assert set(built.protocols) == protocols


def test_only_nat_services() -> None:
    """Services that are forwarded in another way are not this packet path's."""
    path = build(
        service(name="one"),
        service(name="two", ports=81, forward="dsr"),
        service(name="three", ports=82),
    )
    assert [built.name for built in path.balancer.services.services] == ["one", "three"]


@pytest.mark.parametrize(
    ("name", "kind"), [("rr", RoundRobin), ("wrr", SmoothRoundRobin), ("weighted", LeastFlows)]
)
def test_strategies(name: str, kind: type) -> None:
    """The strategy is the one that is named, and every service has its own."""
    path = build(service(name="a", strategy=name), service(name="b", ports=81, strategy=name))
    one, other = path.balancer.services.services
    assert type(one.strategy) is kind
    assert one.strategy is not other.strategy


def test_workers_do_not_start_at_the_same_backend() -> None:
    """The turn of each worker starts at another backend, so that first connections are spread."""
    firsts = set()
    for worker in range(2):
        path = build(service(), worker=worker)
        (built,) = path.balancer.services.services
        key = bytes(4) + built.vip + b"\x04\x00" + b"\x00\x50"
        chosen = path.balancer.choose(built, nat_flow(key), lambda _backend: False)
        assert chosen is not None
        firsts.add(chosen.name)
    assert firsts == {"10.0.0.1", "10.0.0.2"}


def nat_flow(key: bytes) -> Any:
    """A new TCP flow."""
    from paraglider.core.strategies.base import NewFlow

    return NewFlow(TCP, key, 100.0)


def test_weights_and_mapped_ports() -> None:
    """A backend has its weight and port; its translation maps the port only if it differs."""
    backends = [{"address": "10.0.0.1", "port": 8080, "weight": 3}, {"address": "10.0.0.2"}]
    (built,) = build(service(backends=backends)).balancer.services.services
    one, other = built.pool.backends
    assert (one.port, one.weight, one.name) == (8080, 3, "10.0.0.1:8080")
    assert (other.port, other.weight, other.name) == (0, 1, "10.0.0.2")
    assert built.translations[one].mapped
    assert not built.translations[other].mapped


def test_weight_zero_takes_nothing() -> None:
    """A backend with weight 0 is in the pool and not among those that take new flows."""
    backends = [{"address": "10.0.0.1", "weight": 0}, "10.0.0.2"]
    (built,) = build(service(backends=backends)).balancer.services.services
    assert len(built.pool.backends) == 2
    assert [backend.name for backend in built.pool.ready] == ["10.0.0.2"]


def test_affinity_and_return() -> None:
    """``affinity: client`` gives a service a memory of clients; ``return: direct`` is passed on."""
    path = build(
        service(name="plain"),
        service(name="kept", ports=81, affinity="client"),
        service(name="direct", ports=82, **{"return": "direct"}),
    )
    plain, kept, direct = path.balancer.services.services
    assert (plain.affinity, direct.affinity) == (None, None)
    assert kept.affinity is not None
    assert [
        built.translations[built.pool.backends[0]].direct for built in (plain, kept, direct)
    ] == [
        False,
        False,
        True,
    ]


def test_affinity_lasts_as_long_as_the_file_says() -> None:
    """A client is forgotten ``timeouts.affinity`` seconds after its last flow."""
    path = build(service(affinity="client"), timeouts={"affinity": 7})
    (built,) = path.balancer.services.services
    backend = built.pool.backends[0]
    assert built.affinity is not None
    built.affinity.hold(b"abcd", backend)
    built.affinity.release(b"abcd", 100.0)
    assert built.affinity.find(b"abcd", 106.9) is backend
    assert built.affinity.find(b"abcd", 107.0) is None


def syn(port: int) -> bytearray:
    """A SYN from 192.0.2.1 to the VIP."""
    from scapy.layers import inet

    ip = inet.IP(src="192.0.2.1", dst="192.168.0.11")
    return bytearray(bytes(ip / inet.TCP(sport=port, dport=80)))


def test_the_bound_of_the_flow_table() -> None:
    """``flows.max`` is the most that a worker holds."""
    path = build(service(), flows={"max": 5})
    for port in range(1000, 1020):
        packet = syn(port)
        path.handle(packet, 0, len(packet), 0, 100.0)
        assert len(path.flows) <= 5
    assert len(path.flows) == 5


@pytest.mark.parametrize("seconds", [1, 30])
def test_the_timeouts_of_the_file(seconds: int) -> None:
    """A half-open flow is forgotten after ``timeouts.syn``, not before."""
    path = build(service(), timeouts={"syn": seconds})
    packet = syn(1000)
    path.handle(packet, 0, len(packet), 0, 100.0)
    path.flows.expire(100.0 + seconds - 0.5)
    assert len(path.flows) == 1
    path.flows.expire(100.0 + seconds + 5)
    assert len(path.flows) == 0
