"""A client uses one port for two services in turn, whose backend has one port for both."""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import Any

import pytest
from carrying import REQUEST, Carried, opened
from services import http_service

from paraglider.lab.balancer import start_backend
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
ROUNDS = 10
#: the first of the client's ports: replies are looked up by the backend first, or by their own ends
PORTS = {"high": 40_000, "low": 1_100}
SHARED = {"a": 82, "b": 83}
BACKEND_PORT = 8090


def answered(net: Any, family: int, port: int, to: int, seconds: float) -> str:
    """The name of the backend that answers at the VIP's port ``to``, asked ``seconds`` after the
    connection was opened. The client closes first, so the backend takes its port again at once.
    """
    with opened(net.client, family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((net.client_address(family), port))
        one.connect((VIP[family], to))
        time.sleep(seconds)
        one.sendall(REQUEST)
        one.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(partial(one.recv, 4096), b""))
    return answer.rpartition(b"\r\n")[2].decode().strip()


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
@pytest.mark.parametrize("seconds", [0.0, 0.2], ids=["over-in-a-tick", "known-to-the-worker"])
def test_each_connection_is_answered(
    topology: Any, config: Any, balancer: Any, port: int, seconds: float
) -> None:
    """Of the one service and of the other, whichever was before."""
    net = topology()
    start_backend(net.backends[0], "backend1", http=[BACKEND_PORT], udp=())
    plans = [
        http_service(
            family,
            name=f"{name}{family}",
            ports=to,
            backends=[{"address": backend_address(family, 1), "port": BACKEND_PORT}],
            strategy="rr",
            carrier="bpf",
            decide="auto",
        )
        for family in FAMILIES
        for name, to in SHARED.items()
    ]
    Carried(balancer(net, config(*plans, workers=2))).decide(len(plans))
    for family in FAMILIES:
        for turn in range(ROUNDS):
            for to in sorted(SHARED.values(), reverse=turn % 2 > 0):
                assert answered(net, family, port + turn, to, seconds) == "backend1"
