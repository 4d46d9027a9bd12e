"""``forward: dsr`` over real servers and clients, both families: what arrives, at whom, and how."""

from __future__ import annotations

from typing import Any

import pytest
from directing import EVEN, FAMILIES, directed, service

from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root

BIG = 20_000_000


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_backend_its_share(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = directed(topology)
    serve(net)
    echo = service(family, name="echo", protocol="udp", ports=5353)
    balancer(net, config(service(family), echo, workers=workers))
    for protocol, port in (("tcp", 80), ("udp", 5353)):
        answers = ask(net, protocol, VIP[family], port, 30)
        if workers == 1:
            assert answers == EVEN
        else:
            assert set(answers) == set(EVEN)
