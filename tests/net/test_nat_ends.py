"""``forward: nat``: several services on one backend, and clients at the backends' interface."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from carrying import Carried, both

from paraglider.lab.topology import GATEWAY, VIP, backend_address

pytestmark = pytest.mark.root

NAMES = {"backend1", "backend2", "backend3"}


@both
def test_services_on_one_backend(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """Two ports of a VIP, and another VIP, lead to the same port of the same backends: an answer
    comes from the VIP and the port that its client asked, beside a service with all other ports.
    """
    net = topology()
    serve(net, http=(80, 8080), udp=(5353,))
    second = {4: "192.168.0.12", 6: "2001:db8::12"}
    services = []
    for family in (4, 6):
        web = [{"address": backend_address(family, n), "port": 80} for n in (1, 2, 3)]
        echo = [{"address": backend_address(family, n), "port": 5353} for n in (1, 2, 3)]
        vip = service(family)["vip"].replace(VIP[family], second[family])
        services += [
            service(family, name=f"a{family}", ports=80) | {"backends": web},
            service(family, name=f"b{family}", ports=81) | {"backends": web},
            service(family, name=f"c{family}", ports=80, vip=vip) | {"backends": web},
            service(family, name=f"d{family}", ports=5301, protocol="udp") | {"backends": echo},
            service(family, name=f"e{family}", ports=5302, protocol="udp") | {"backends": echo},
            service(family, name=f"rest{family}"),
        ]
    balancer(net, config(*services, workers=2))
    for family in (4, 6):
        for address, port in ((VIP[family], 80), (VIP[family], 81), (second[family], 80)):
            answers = ask(net, "tcp", address, port, 12)
            assert (set(answers), answers.total()) == (NAMES, 12)
        assert set(ask(net, "tcp", VIP[family], 8080, 6)) == NAMES
        for port in (5301, 5302):
            assert set(peer(net.client, "ports", VIP[family], port, 12)) == NAMES


@both
def test_a_client_behind_the_private_interface(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any,
    carrier: str,
) -> None:  # fmt: skip
    """Its packets leave by the interface by which they came, both ways, over IPv4 and IPv6: bulk
    arrives whole.
    """
    net = topology()
    serve_peer(net, 9000)
    third = net.backends[2]
    services = [service(family, ports=9000, backends=2) for family in (4, 6)]
    running = balancer(net, config(*services, workers=2))
    size = 300_000
    half = Carried(running).carrying(2 * size) if carrier == "bpf" else contextlib.nullcontext()
    with half:
        for family, host in ((4, "172.16.0.1"), (6, "fd00:99::1")):
            third.ip(
                f"address add {host} dev eth0{' nodad' if family == 6 else ''}",
                f"route add {VIP[family]} via {GATEWAY[family]} src {host}",
            )
            net.balancer.ip(f"route add {host} dev eth1")
            for verb in ("up", "down"):
                result = peer(third, verb, VIP[family], 9000, size)
                assert result["sent"] == result["arrived"]
