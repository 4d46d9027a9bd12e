"""More new flows than a worker can take: what is established goes on, clients that are known are
served, and what is dropped is counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from directing import directed
from processes import workers

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology
from paraglider.netfilter.rules.nft import NFT_FAMILY

pytestmark = pytest.mark.root

SYNS = Path(__file__).parents[2] / "bench" / "syns.py"
PATIENCE = 20.0  # seconds until something that must happen counts as not happening
OPENINGS = 16
ENDS = (("tcp", 80), ("udp", 5353))

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


def flood_of(net: Topology, family: int, count: int, rate: int, kind: str, port: int) -> list[str]:
    """The command that sends ``count`` packets to the VIP, ``rate`` a second."""
    link = json.loads(net.balancer.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    target = ["eth0", link["address"], VIP[family], str(port), str(count), str(rate), kind]
    return [sys.executable, str(SYNS), *target]


def flood(net: Topology, family: int, count: int, kind: str = "tcp", port: int = 80) -> None:
    """``count`` SYNs or datagrams to the VIP from as many addresses, at once."""
    net.client.run(flood_of(net, family, count, 0, kind, port), timeout=60)


@contextlib.contextmanager
def flooded(net: Topology, family: int) -> Iterator[None]:
    """Two thousand SYNs a second, for as long as the block lasts."""
    command = flood_of(net, family, 1_000_000, 2000, "tcp", 80)
    sending = net.client.popen(command, stdout=-1)
    try:
        assert sending.stdout is not None
        assert sending.stdout.readline() == b"sending\n"
        yield
    finally:
        sending.terminate()
        sending.communicate(timeout=20)


def queues(running: LabBalancer) -> tuple[dict[str, int], dict[str, int]]:
    """What the kernel says of the worker's queues: established, openings."""
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    (row,) = [row for row in control.get("workers") if row["role"] == "worker"]
    return row["queue"], row["openings"]


def until(condition: Callable[[], object], running: LabBalancer) -> None:
    """Wait for ``condition``; fail with the log when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.02)


@pytest.mark.parametrize(("io", "kind"), [("netlink", "udp"), ("netfilterqueue", "tcp")])
def test_openings_wait_apart(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, io: str, kind: str
) -> None:
    """While a worker stands still SYNs or datagrams of new flows fill the queue of openings alone:
    those beyond its length are dropped and counted, and a datagram of a known flow that came behind
    them is answered.
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
    short = {"io": io, "length": OPENINGS, "openings": OPENINGS, "openings_rate": 0}
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
            flood(net, family, 200, kind, 80 if kind == "tcp" else 5353)
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


def status(running: LabBalancer) -> dict[str, Any]:
    """What the daemon says of everything."""
    found: dict[str, Any] = ControlClient(str(running.config.parent.parent / "control.sock")).get(
        "status"
    )
    return found


def counted(net: Topology, family: int, name: str) -> int:
    """Packets of a counter in a table of ours."""
    table = "paraglider" if name == "unanswered" else "paraglider-openings"
    command = ["nft", "-j", "list", "counter", NFT_FAMILY[family], table, name]
    items = json.loads(net.balancer.run(command).stdout)["nftables"]
    return sum(item["counter"]["packets"] for item in items if "counter" in item)


LIMITED = {"openings_rate": 10, "openings": 5}  # a second, and at once


@pytest.mark.parametrize("forward", ["nat", "dsr", "offload"])
def test_known_clients_are_served_under_a_flood(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, forward: str
) -> None:
    """Of clients that nobody knows most SYNs are dropped ahead of the queue, and counted; one that
    has been answered before may open as many connections as ever, and one that is new is served
    when its SYN comes again. Of offload none is dropped: the kernel's hash decides.
    """
    net = directed(topology) if forward == "dsr" else topology()
    serve(net)
    services = [service(family, ports=80, forward=forward) for family in (4, 6)]
    running = balancer(net, config(*services, queue=LIMITED))
    name = "unanswered" if forward == "offload" else "refused-tcp"
    dropped = 0
    for family in (4, 6):
        with flooded(net, family):  # nobody knows the client yet: its SYN comes again
            assert ask(net, "tcp", VIP[family], 80, 1).total() == 1
        earlier = counted(net, family, name)
        flood(net, family, 200)
        before = counted(net, family, name)
        assert before >= earlier + 150
        assert ask(net, "tcp", VIP[family], 80, 30).total() == 30
        assert forward == "offload" or counted(net, family, name) == before
        dropped += before
    if forward != "offload":
        until(lambda: status(running)["kernel"]["refused_tcp"] == dropped, running)
        conditions = [row["object"] for row in status(running)["health"]["conditions"]]
        assert "new connections" in conditions


def test_flows_of_datagrams_are_known(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """What goes on over a flow that a worker has taken is never refused, while new ones are; a
    client that has been answered over TCP may open new ones too.
    """
    net = topology()
    serve(net)
    services = [
        service(f, name=f"{p}{f}", ports=port, protocol=p) for f in (4, 6) for p, port in ENDS
    ]
    balancer(net, config(*services, queue=LIMITED))
    for family in (4, 6):
        command = [sys.executable, "-c", ECHO, VIP[family], "5353"]
        client = net.client.popen(command, stdin=-1, stdout=-1)
        ask_it, hear = client.stdin, client.stdout
        assert ask_it is not None
        assert hear is not None
        for number in range(30):
            if number == 10:
                flood(net, family, 200, "udp", 5353)
                before = counted(net, family, "refused-udp")
                assert before >= 150
            ask_it.write(b"%d\n" % number)
            ask_it.flush()
            assert hear.readline() == b"sent\n"
            assert hear.readline().endswith(b" %d\n" % number)
        client.communicate(timeout=20)
        assert ask(net, "tcp", VIP[family], 80, 1).total() == 1
        assert ask(net, "udp", VIP[family], 5353, 30).total() == 30
        assert counted(net, family, "refused-udp") == before
