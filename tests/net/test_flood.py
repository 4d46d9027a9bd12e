"""More SYNs than a worker can take: what is established goes on, and openings are counted."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import workers

from paraglider.control.api.client import Control
from paraglider.lab.balancer import Balancer
from paraglider.lab.topology import VIP, Topology

pytestmark = pytest.mark.root

SYNS = Path(__file__).parents[2] / "bench" / "syns.py"
PATIENCE = 20.0  # seconds until something that must happen counts as not happening
OPENINGS = 16

ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    s.send(line.encode())
    print("sent", flush=True)
    print(s.recv(100).decode().strip(), flush=True)
"""


def flood(net: Topology, family: int, count: int) -> None:
    """``count`` SYNs to the VIP from as many addresses, at once."""
    link = json.loads(net.balancer.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    target = ["eth0", link["address"], VIP[family], "80", str(count), "0"]
    net.client.run([sys.executable, str(SYNS), *target], timeout=60)


def queues(running: Balancer) -> tuple[dict[str, int], dict[str, int]]:
    """What the kernel says of the worker's queues: established, openings."""
    control = Control(str(running.config.parent.parent / "control.sock"))
    (row,) = [row for row in control.get("workers") if row["role"] == "worker"]
    return row["queue"], row["openings"]


def until(condition: Callable[[], object], running: Balancer) -> None:
    """Wait for ``condition``; fail with the log when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.02)


@pytest.mark.parametrize("io", ["netlink", "netfilterqueue"])
def test_openings_wait_apart(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, io: str
) -> None:
    """While a worker stands still SYNs fill the queue of openings alone: those beyond its length
    are dropped and counted, and a datagram of a known flow that came behind them is answered.
    """
    net = topology(backends=1)
    serve(net)
    web = [
        service(family, ports=80, protocol="tcp", backends=1, name=f"web{family}")
        for family in (4, 6)
    ]
    echo = [
        service(family, ports=5353, protocol="udp", backends=1, name=f"echo{family}")
        for family in (4, 6)
    ]
    short = {"io": io, "length": OPENINGS, "openings": OPENINGS}
    running = balancer(net, config(*web, *echo, queue=short), trouble=True)
    (worker,) = workers(running)
    for family in (4, 6):
        before = queues(running)[1]["overflows"]
        client = net.client.popen(
            [sys.executable, "-c", ECHO, VIP[family], "5353"], stdin=-1, stdout=-1
        )
        ask, hear = client.stdin, client.stdout

        def say(text: bytes, ask: Any = ask, hear: Any = hear) -> None:
            ask.write(text)
            ask.flush()
            assert hear.readline() == b"sent\n"

        say(b"one\n")
        assert hear.readline() == b"backend1 one\n"
        os.kill(worker, signal.SIGSTOP)
        try:
            flood(net, family, 200)
            say(b"two\n")
            until(lambda seen=before: queues(running)[1]["overflows"] - seen >= 100, running)
            established, openings = queues(running)
            assert established["overflows"] == 0
            assert openings["waiting"] == openings["length"] == OPENINGS
        finally:
            os.kill(worker, signal.SIGCONT)
        assert hear.readline() == b"backend1 two\n"
        client.communicate(timeout=20)
    until(lambda: "openings_dropped=" in running.log(), running)
    assert "level=error" in running.log()
    assert "overflows=" not in running.log()
