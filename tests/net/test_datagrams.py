"""Clients of UDP that never change their port: they leave a backend that takes no new flows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from carrying import forwards
from directing import directed
from failing import control
from waiting import wait_until

from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
PEER = Path(__file__).parent / "peer.py"


class Asker:
    """A client's socket."""

    def __init__(self, net: Topology, family: int) -> None:
        command = [sys.executable, str(PEER), "again", VIP[family], "5353"]
        self._process = net.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self) -> str | None:
        """The backend that answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        name: str | None = json.loads(self._process.stdout.readline())
        return name


@forwards("nat", "offload", "dsr", "static")
def test_they_leave(
    topology: Any, serve: Any, config: Any, service: Any, request: Any, forward: str
) -> None:
    """In maintenance at once; removed from the file after `drain_timeout`, or at once without a
    daemon.
    """
    static = forward == "static"
    net = directed(topology) if forward == "dsr" else topology()
    serve(net, http=())

    def file(*numbers: int) -> str:
        services = [
            service(
                family,
                protocol="udp",
                ports=5353,
                forward="offload" if static else forward,
                drain_timeout=1,
            )
            | {"backends": [backend_address(family, number) for number in numbers]}
            for family in FAMILIES
        ]
        text: str = config(*services)
        return text

    running = request.getfixturevalue("start" if static else "balancer")(net, file(1, 2))
    askers = {family: Asker(net, family) for family in FAMILIES}
    first = {family: wait_until(one.ask) for family, one in askers.items()}
    assert set(first.values()) <= {"backend1", "backend2"}

    def moved(left: str | None, family: int) -> bool:
        return askers[family].ask() not in (left, None)

    if not static:
        for family, name in first.items():
            backend = backend_address(family, int(str(name)[-1]))
            control(running).set_backend(f"web{family}", backend, state="maint")
            wait_until(lambda f=family, n=name: moved(n, f), running.log)
            control(running).set_backend(f"web{family}", backend, state="ready")
    left = wait_until(askers[4].ask)
    stays = 3 - int(str(left)[-1])
    running.config.write_text(file(stays))
    if static:
        running.set_up()
    else:
        control(running).post("reload", {})
    for family in FAMILIES:
        wait_until(lambda f=family: askers[f].ask() == f"backend{stays}", running.log)
