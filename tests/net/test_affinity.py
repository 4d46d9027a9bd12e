"""``affinity: client`` end to end: a client keeps its backend, whichever worker it meets.

The tests share a network, and a balancer for each number of workers and carrier, in which each has
services on a VIP of its own: a client's backend is that of its first flow there.
"""

from __future__ import annotations

from typing import Any

import pytest
from counting import echo_requests
from services import http_service
from sharing import Shared, vip

from paraglider.lab.topology import PUBLIC_PREFIX, Topology

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
CLIENTS = 6
#: the VIPs by their numbers
KEPT, ANY, EVENLY, BESIDE = 1, 2, 3, 4


def client_of(service: int, number: int) -> int:
    """The address of a client of the VIP ``service``. None is a client of two: the backends have
    the same ports there, so one port of a client cannot go to the same backend from both VIPs, and
    a client that uses it again meets another backend.
    """
    return (service - 1) * CLIENTS + number


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing(clients=client_of(BESIDE, CLIENTS))
    made.serve(http=(80, 81, 8080))
    return made


@pytest.fixture
def net(shared: Shared, workers: int, carrier: str) -> Topology:
    """The network, with a balancer."""

    def on(family: int, number: int, name: str, **changes: Any) -> dict[str, Any]:
        made = http_service(family, name=f"{name}{family}", carrier=carrier, **changes)
        if made["protocol"] == "any":
            del made["ports"]
        return made | {"vip": f"{vip(family, number)}/{PUBLIC_PREFIX[family]}"}

    services = [
        service
        for family in FAMILIES
        for service in (
            on(family, KEPT, "kept", affinity="client"),
            on(family, ANY, "any", affinity="client", protocol="any"),
            on(family, EVENLY, "evenly", affinity="client"),
            on(family, BESIDE, "beside", affinity="client"),
            on(family, BESIDE, "turns", ports=81),
        )
    ]
    shared.balancer(shared.config(*services, workers=workers))
    return shared.net


#: the parameters bring tests together that share a balancer
each = pytest.mark.parametrize(
    ("workers", "carrier"), [(1, "worker"), (2, "worker"), (2, "bpf")], scope="module"
)
one_worker = pytest.mark.parametrize(("workers", "carrier"), [(1, "worker")], scope="module")
two_workers = pytest.mark.parametrize(("workers", "carrier"), [(2, "bpf")], scope="module")


def answers_to(
    net: Topology, family: int, number: int, service: int, count: int, port: int = 80
) -> set[str]:
    """The backends of ``count`` connections from the client's address ``number`` to a VIP."""
    address = vip(family, service)
    host = f"[{address}]" if family == 6 else address
    source = net.client_address(family, client_of(service, number))
    command = ["curl", "-sS", "--fail", "--interface", source]
    for _ in range(count):
        command += [f"http://{host}:{port}/", "-H", "Connection: close"]
    return set(net.client.run(command).stdout.split())


@each
def test_a_client_keeps_its_backend(net: Topology) -> None:
    """Every connection of one address meets the same backend; six addresses meet several."""
    for family in FAMILIES:
        kept = [answers_to(net, family, number, KEPT, 8) for number in range(CLIENTS)]
        assert [len(backends) for backends in kept] == [1] * CLIENTS
        assert len(set.union(*kept)) > 1
        again = [answers_to(net, family, number, KEPT, 4) for number in range(CLIENTS)]
        assert again == kept


@one_worker
def test_one_worker_spreads_clients_evenly(net: Topology) -> None:
    """Under rr each new client gets the next backend, whatever existing clients do."""
    kept = [answers_to(net, 4, number, EVENLY, 3) for number in range(CLIENTS)]
    assert kept == [{"backend1"}, {"backend2"}, {"backend3"}] * 2


@two_workers
def test_a_service_without_affinity_beside_it(net: Topology, ask: Any) -> None:
    """Another service on the same workers takes turns."""
    for family in FAMILIES:
        assert len(answers_to(net, family, 0, BESIDE, 9)) == 1
        turns = ask(net, "tcp", vip(family, BESIDE), 81, 9)
        assert turns == {"backend1": 3, "backend2": 3, "backend3": 3}


@each
def test_all_that_a_client_sends_to_any(net: Topology, ask: Any, peer: Any, workers: int) -> None:
    """As in loaded: TCP on any port, UDP and ping of one client go to one backend."""
    for family in FAMILIES:
        homes, address = [], vip(family, ANY)
        for number in range(3):
            source = net.client_address(family, client_of(ANY, number))
            net.client.ip(f"route replace {address} dev eth0 src {source}")
            met = set(ask(net, "tcp", address, 80, 4))
            assert len(met) == 1
            assert set(ask(net, "tcp", address, 8080, 4)) == met
            assert set(peer(net.client, "ports", address, 5353, 4)) == met
            before = echo_requests(net, family)
            assert ask(net, "ping", address, 0, 4) == {"": 4}
            pinged = [now - b for now, b in zip(echo_requests(net, family), before, strict=True)]
            (home,) = met
            others = [n for n in (1, 2, 3) if home != f"backend{n}"]
            assert sum(pinged) >= 4
            assert not any(pinged[n - 1] for n in others)
            homes.append(home)
        # One worker gives each new client the next backend; two start from different ones.
        assert workers == 2 or len(set(homes)) == 3
