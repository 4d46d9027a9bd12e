"""A client uses one port again and again, and the kernel decides about each of its connections."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, name_of, opened
from counting import connections
from failing import control, rows
from services import http_service
from waiting import wait_until

from paraglider.core.flow import TCP
from paraglider.lab.balancer import start_backend
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
COUNT = 60  # connections of each family and service
PORT = 40_000
#: services with one backend port: replies are recognized by an entry of their own
SHARED = {"a": 82, "b": 83}


def connected(net: Any, family: int, to: int) -> socket.socket:
    """A client's connection to the VIP's port ``to``. Each service has a client's port of its own:
    one port cannot have connections with one backend's port by two services at a time.
    """
    one = opened(net.client, family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((net.client_address(family), PORT + to))

    def connects() -> bool:
        try:
            one.connect((VIP[family], to))
        except OSError as error:
            # The connection before it waits for its last ACK, and has the port until then.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
        return True

    wait_until(connects)
    return one


def answered(net: Any, family: int, to: int) -> str:
    """The name of the backend that answers at the VIP's port ``to``. The server closes first, so
    that the client's port is soon free.
    """
    with connected(net, family, to) as one:
        return name_of(one)


def test_no_connection_but_the_first_passes_a_queue(
    topology: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """They take turns over the backends, are counted where they went, and leave no flow and, after
    a while, no entry.
    """
    net = topology()
    for number, backend in enumerate(net.backends, 1):
        start_backend(backend, f"backend{number}", http=[81, 90], udp=())
    plans = [
        http_service(
            family,
            name=f"{name}{family}",
            ports=to,
            backends=[{"address": backend_address(family, n), "port": at} for n in (1, 2, 3)],
            strategy="rr",
            carrier="bpf",
            decide="auto",
        )
        for family in FAMILIES
        for name, to, at in (("own", 81, 81), *((name, to, 90) for name, to in SHARED.items()))
    ]
    running = balancer(net, config(*plans, workers=2))
    carried = Carried(running)
    carried.decide(len(plans))
    left = carried.counted("syn"), carried.counted("flood"), carried.counted("no_backend")
    for family in FAMILIES:
        for name, to in (("own", 81), *SHARED.items()):
            with carried.counting("opened", COUNT):
                answers = Counter(answered(net, family, to) for _ in range(COUNT))
            assert set(answers.values()) == {COUNT // 3}, (name, answers)

            def counted(name: str = name, family: int = family) -> list[int]:
                return [row["conns"] for row in rows(running, family, name).values()]

            wait_until(lambda c=counted: c() == [COUNT // 3] * 3, lambda c=counted: str(c()))
    assert left == tuple(map(carried.counted, ("syn", "flood", "no_backend"))), carried.counts()

    def live() -> list[dict[str, Any]]:
        flows = control(running).get("flows")["flows"]
        return [flow for flow in flows if flow["state"] != "time-wait"]

    wait_until(lambda: not live(), lambda: f"{live()}\n{running.log()}")
    entries = [len(carried.flags(TCP, family)) for family in FAMILIES]
    assert max(entries) <= 1 + 2 * len(SHARED)  # of the last connection of each service
    wait_until(
        lambda: not any(carried.flags(TCP, family) for family in FAMILIES),
        lambda: f"{[carried.flags(TCP, family) for family in FAMILIES]}\n{running.log()}",
    )


def test_a_reset_reaches_the_backend_of_the_new_connection(
    topology: Any, config: Any, balancer: Any
) -> None:
    """At once after the connection was opened, before its worker has heard of it: the connection
    before it, from the same port to another backend, is over.
    """
    net = topology()
    for number, backend in enumerate(net.backends, 1):
        start_backend(backend, f"backend{number}", http=[81], udp=())
    plan = http_service(4, ports=81, strategy="rr", carrier="bpf", decide="auto")
    running = balancer(net, config(plan, workers=2))
    Carried(running).decide(1)
    for _ in range(COUNT // 3):
        answered(net, 4, 81)
        with connected(net, 4, 81) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def left() -> list[str]:
        return [line for backend in net.backends for line in connections(backend, 81)]

    wait_until(lambda: not left(), lambda: f"{left()}\n{running.log()}")
