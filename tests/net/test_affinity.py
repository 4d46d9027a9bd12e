"""``affinity: client`` end to end: a client keeps its backend, whichever worker it meets."""

from __future__ import annotations

from typing import Any

import pytest
from counting import echo_requests

from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

CLIENTS = 6


def answers_to(net: Topology, family: int, number: int, port: int, count: int) -> set[str]:
    """The backends of ``count`` connections from the client's address ``number``."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    source = net.client_address(family, number)
    command = ["curl", "-sS", "--fail", "--interface", source]
    for _ in range(count):
        command += [f"http://{host}:{port}/", "-H", "Connection: close"]
    return set(net.client.run(command).stdout.split())


@pytest.mark.parametrize(
    ("workers", "carrier"), [(1, "worker"), (2, "worker"), (2, "bpf")], indirect=["carrier"]
)
def test_a_client_keeps_its_backend(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, workers: int
) -> None:
    """Every connection of one address meets the same backend; six addresses meet several."""
    net = topology(clients=CLIENTS)
    serve(net, udp=())
    services = [service(family, ports=80, affinity="client") for family in (4, 6)]
    balancer(net, config(*services, workers=workers))
    for family in (4, 6):
        kept = [answers_to(net, family, number, 80, 8) for number in range(CLIENTS)]
        assert [len(backends) for backends in kept] == [1] * CLIENTS
        assert len(set.union(*kept)) > 1
        again = [answers_to(net, family, number, 80, 4) for number in range(CLIENTS)]
        assert again == kept


def test_one_worker_spreads_clients_evenly(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """Under rr each new client gets the next backend, whatever existing clients do."""
    net = topology(clients=CLIENTS)
    serve(net, udp=())
    balancer(net, config(service(4, ports=80, affinity="client")))
    kept = [answers_to(net, 4, number, 80, 3) for number in range(CLIENTS)]
    assert kept == [{"backend1"}, {"backend2"}, {"backend3"}] * 2


def test_a_service_without_affinity_beside_it(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Another service on the same workers takes turns."""
    net = topology()
    serve(net, http=(80, 81), udp=())
    services = [
        service(family, name=f"{name}{family}", ports=port, affinity=affinity)
        for family in (4, 6)
        for name, port, affinity in (("kept", 80, "client"), ("turns", 81, "flow"))
    ]
    balancer(net, config(*services, workers=2))
    for family in (4, 6):
        assert len(answers_to(net, family, 0, 80, 9)) == 1
        assert ask(net, "tcp", VIP[family], 81, 9) == {"backend1": 3, "backend2": 3, "backend3": 3}


@pytest.mark.parametrize(
    ("workers", "carrier"), [(1, "worker"), (2, "worker"), (2, "bpf")], indirect=["carrier"]
)
def test_all_that_a_client_sends_to_any(
    topology: Any,
    serve: Any,
    config: Any,
    service: Any,
    balancer: Any,
    ask: Any,
    peer: Any,
    workers: int,
) -> None:
    """As in loaded: TCP on any port, UDP and ping of one client go to one backend."""
    net = topology(clients=3)
    serve(net, http=(80, 8080))
    services = [service(family, protocol="any", affinity="client") for family in (4, 6)]
    balancer(net, config(*services, workers=workers))
    for family in (4, 6):
        homes = []
        for number in range(3):
            source = net.client_address(family, number)
            net.client.ip(f"route replace {VIP[family]} dev eth0 src {source}")
            met = set(ask(net, "tcp", VIP[family], 80, 4))
            assert len(met) == 1
            assert set(ask(net, "tcp", VIP[family], 8080, 4)) == met
            assert set(peer(net.client, "ports", VIP[family], 5353, 4)) == met
            before = echo_requests(net, family)
            assert ask(net, "ping", VIP[family], 0, 4) == {"": 4}
            pinged = [now - b for now, b in zip(echo_requests(net, family), before, strict=True)]
            (home,) = met
            others = [n for n in (1, 2, 3) if home != f"backend{n}"]
            assert sum(pinged) >= 4
            assert not any(pinged[n - 1] for n in others)
            homes.append(home)
        # One worker gives each new client the next backend; two start from different ones.
        assert workers == 2 or len(set(homes)) == 3
