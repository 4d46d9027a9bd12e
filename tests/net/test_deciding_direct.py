"""The kernel decides about flows whose answers bypass the balancer: by dsr, by tunnel, and by nat
with `return: direct`.

One balancer is at work for all tests, with two workers, and a service of each forward method,
strategy, family and protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from carrying import Carried, answers_held
from directing import FAMILIES, working
from failing import rows
from inside import InsideBalancer
from services import http_service

from paraglider.lab.balancer import start_backend
from paraglider.lab.topology import PUBLIC_PREFIX, Plan, Topology, backend_address

pytestmark = pytest.mark.root

STRATEGIES = ("rr", "wrr", "weighted", "maglev")
METHODS: dict[str, dict[str, Any]] = {
    "dsr": {"forward": "dsr"},
    "tunnel": {"forward": "tunnel", "encapsulation": {"type": "gue"}},
    "nat": {"forward": "nat", "return": "direct"},
}
#: the port of the services with a forward method and a strategy
PORTS = {
    pair: 81 + number for number, pair in enumerate((m, s) for m in METHODS for s in STRATEGIES)
}
PROTOCOLS = ("tcp", "udp")
#: the VIP of each forward method and family: no two methods may have the same
VIPS = {
    (method, family): f"{prefix}{number}"
    for number, method in enumerate(METHODS, 11)
    for family, prefix in ((4, "192.168.0."), (6, "2001:db8::"))
}


def services() -> Iterator[dict[str, Any]]:
    """All of them; their backends have the weights 1, 2 and 3, which `rr` ignores."""
    for (method, strategy), port in PORTS.items():
        for family in FAMILIES:
            backends = [
                {"address": backend_address(family, n), "weight": 1 if strategy == "rr" else n}
                for n in (1, 2, 3)
            ]
            for protocol in PROTOCOLS:
                yield http_service(
                    family,
                    name=f"{method}-{strategy}-{protocol}{family}",
                    vip=f"{VIPS[method, family]}/{PUBLIC_PREFIX[family]}",
                    protocol=protocol,
                    ports=port,
                    backends=backends,
                    strategy=strategy,
                    carrier="bpf",
                    decide="auto",
                    **METHODS[method],
                )


class World(Carried):
    """The network, and the balancer at work in it."""

    def __init__(self, net: Topology, running: InsideBalancer) -> None:
        super().__init__(running)
        self.net = net

    def sum(self, column: str, name: str, family: int) -> int:
        """The sum of a column over all backends of a service."""
        return sum(row[column] for row in rows(self.running, family, name).values())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three backends with servers of TCP and UDP, set up by the operator's command."""
    directory = tmp_path_factory.mktemp("deciding")
    with Topology(Plan(direct=True, gateways=True)) as net:
        for number, backend in enumerate(net.backends, 1):
            ports = list(PORTS.values())
            start_backend(backend, f"backend{number}", http=ports, udp=ports)
        with working(net, directory, list(services())) as running:
            world = World(net, running)
            world.decide(len(list(services())))
            yield world


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_connection_is_counted_once(
    world: World, ask: Any, method: str, strategy: str
) -> None:
    """As many as the client has opened, at the backend that answered, with shares by weight; over
    UDP too. When all connections have ended, none is live.
    """
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            name = f"{method}-{strategy}-{protocol}"
            end = VIPS[method, family], PORTS[method, strategy]
            with world.counting("opened", 30):
                if strategy == "weighted":
                    # The worker may hear late that a flow has ended, or of a new one.
                    counted = partial(world.sum, "conns", name, family)
                    answers = answers_held(world.net, protocol, end, [10] * 3, counted)
                else:
                    answers = ask(world.net, protocol, *end, 30)
            if strategy == "rr":
                assert set(answers.values()) == {10}
            elif strategy == "maglev":
                assert len(answers) > 1
            else:
                exact = 3 if strategy == "weighted" else 2
                assert sorted(answers.values()) == pytest.approx([5, 10, 15], abs=exact)
            wanted = {f"backend{n}": answers[f"backend{n}"] for n in (1, 2, 3)}

            def counts(name: str = name, family: int = family) -> Any:
                found = rows(world.running, family, name)
                return {
                    f"backend{n}": found[backend_address(family, n)]["conns"] for n in (1, 2, 3)
                }

            world.until(lambda c=counts, w=wanted: c() == w, f"{wanted}, {counts()}")

    for family in FAMILIES:
        name = f"{method}-{strategy}-tcp"
        world.until(lambda n=name, f=family: not world.sum("flows", n, f), "no live flow")
