"""More new flows than a worker can handle: established flows continue, known clients are served,
and dropped packets are counted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, both, forwards, mac, opened, wire
from counting import await_received
from directing import directed
from failing import control
from processes import workers
from waiting import TIMEOUT, wait_until

from bench.syns import NETWORKS, datagram, syn
from paraglider.core.flow import TCP
from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology
from paraglider.netfilter.rules.nft import NFT_FAMILY

pytestmark = pytest.mark.root

SYNS = Path(__file__).parents[2] / "bench" / "syns.py"
OPENINGS = 16
ENDS = (("tcp", 80), ("udp", 5353))

ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    s.send(line.encode())
    print("sent", flush=True)
    print(s.recv(100).decode().strip(), flush=True)
"""


@pytest.fixture(scope="module")
def network(sharing: Any) -> Topology:
    """Three backends with servers; a balancer that ends leaves no rule and no known client."""
    made = sharing()
    made.serve()
    net: Topology = made.net
    return net


def flood_of(net: Topology, family: int, count: int, rate: int, kind: str, port: int) -> list[str]:
    """The command that sends ``count`` packets to the VIP, ``rate`` a second."""
    link = json.loads(net.balancer.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    target = ["eth0", link["address"], VIP[family], str(port), str(count), str(rate), kind]
    return [sys.executable, str(SYNS), *target]


def flood(net: Topology, family: int, count: int, kind: str = "tcp", port: int = 80) -> None:
    """``count`` SYNs or datagrams to the VIP from as many addresses, at once; all have arrived."""
    net.client.run(flood_of(net, family, count, 0, kind, port), timeout=60)
    await_received()


def burst(net: Topology, family: int, count: int, kind: str, port: int) -> list[bytes]:
    """The frames of ``flood``, to be sent by ``wire``: no program has to start while a worker is
    stopped, which counts as one that hangs after four seconds.
    """
    ends = mac(net.balancer, "eth0") + mac(net.client, "eth0")
    head = bytes.fromhex(ends.replace(":", "")) + {4: b"\x08\x00", 6: b"\x86\xdd"}[family]
    vip, network = ipaddress.ip_address(VIP[family]).packed, ipaddress.ip_network(NETWORKS[family])
    made = {"tcp": syn, "udp": datagram}[kind]
    return [head + made(network[n + 1].packed, vip, 1024 + n, port, n) for n in range(count)]


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
        sending.communicate(timeout=TIMEOUT)


def queues(running: LabBalancer) -> tuple[dict[str, int], dict[str, int]]:
    """The kernel's status of the worker's queues: established, openings."""
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    (row,) = [row for row in control.get("workers") if row["role"] == "worker"]
    return row["queue"], row["openings"]


@pytest.mark.parametrize(
    ("io", "kind", "carrier"),
    [("netlink", "udp", "worker"), ("netlink", "tcp", "bpf"), ("netfilterqueue", "tcp", "worker")],
    indirect=["carrier"],
)
def test_openings_wait_apart(
    network: Topology, config: Any, service: Any, balancer: Any, io: str, kind: str
) -> None:
    """While a worker is stopped, SYNs or datagrams of new flows fill only the queue of openings:
    those beyond its length are dropped and counted, and a later datagram of a known flow is
    answered.
    """
    net = network
    common = {"backends": 1, "decide": "python"}  # else no SYN reaches a queue
    web = [
        service(family, ports=80, protocol="tcp", name=f"web{family}", **common)
        for family in (4, 6)
    ]
    echo = [
        service(family, ports=5353, protocol="udp", name=f"echo{family}", **common)
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
        frames = burst(net, family, 200, kind, 80 if kind == "tcp" else 5353)
        sock = wire(net.client)
        os.kill(worker, signal.SIGSTOP)
        try:
            for frame in frames:
                sock.send(frame)
            say(b"two\n")
            wait_until(
                lambda seen=before: queues(running)[1]["overflows"] - seen >= 100, running.log
            )
            established, openings = queues(running)
            assert established["overflows"] == 0
            assert openings["waiting"] == openings["length"] == OPENINGS
        finally:
            os.kill(worker, signal.SIGCONT)
            sock.close()
        assert hear.readline() == b"backend1 two\n"
        client.communicate(timeout=TIMEOUT)
    wait_until(lambda: "openings_dropped=" in running.log(), running.log)
    assert "level=error" in running.log()
    assert "overflows=" not in running.log()


def status(running: LabBalancer) -> dict[str, Any]:
    """The daemon's status."""
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


@forwards("nat", "dsr", "offload")
def test_known_clients_are_served_under_a_flood(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, forward: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Most SYNs of unknown clients are dropped before the queue, and counted; a client that was
    answered before may open any number of connections, and a new one is served when its SYN is
    repeated. With offload none is dropped: the kernel's hash decides.
    """
    if forward == "dsr":
        net = directed(topology)
        serve(net, udp=())
    else:
        net = request.getfixturevalue("network")
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
        wait_until(lambda: status(running)["kernel"]["refused_tcp"] == dropped, running.log)
        conditions = [row["object"] for row in status(running)["health"]["conditions"]]
        assert "new connections" in conditions


@pytest.mark.parametrize("carrier", ["bpf"], indirect=True)
@pytest.mark.parametrize(
    ("strategy", "reason", "said"),
    [
        ("maglev", "stateless", "BPF decides about more new flows"),
        ("rr", "flood", "from clients not known yet are dropped"),
    ],
)
def test_the_kernel_decides_under_a_flood(
    network: Topology, config: Any, service: Any, balancer: Any, ask: Any,
    strategy: str, reason: str, said: str,
) -> None:  # fmt: skip
    """By hash, SYNs go on to the backends, by turn they go to the worker, before which nft drops
    them: few get an entry, a new client is served, and the log says why.
    """
    net = network
    services = [service(family, ports=80, strategy=strategy, decide="auto") for family in (4, 6)]
    running = balancer(net, config(*services, queue=LIMITED))
    carried = Carried(running)
    carried.decide(2)
    for family in (4, 6):
        with carried.counting(reason, 800):  # some may be lost on a busy machine
            flood(net, family, 1000)
        with flooded(net, family):
            assert ask(net, "tcp", VIP[family], 80, 1).total() == 1
        assert sum(n for _, _, n in carried.maps.flows[TCP, family].dump()) < 900
    wait_until(lambda: said in running.log(), running.log)


@both
def test_flows_of_datagrams_are_known(
    network: Topology, config: Any, service: Any, balancer: Any, ask: Any
) -> None:
    """Datagrams of a flow in a worker's table are never refused, while new ones are; a client that
    was answered over TCP may open new ones too.
    """
    net = network
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
        client.communicate(timeout=TIMEOUT)
        assert ask(net, "tcp", VIP[family], 80, 1).total() == 1
        assert ask(net, "udp", VIP[family], 5353, 30).total() == 30
        assert counted(net, family, "refused-udp") == before


@pytest.mark.parametrize("carrier", ["bpf"], indirect=True)
def test_a_flow_that_is_carried_no_longer(
    network: Topology, config: Any, service: Any, balancer: Any
) -> None:
    """BPF carried a flow of datagrams for so long that nft has forgotten it: after `carrier off`
    its next datagram is an opening, those after it are known, and its backend is the same.
    """
    net = network
    services = [service(family, ports=5353, protocol="udp") for family in (4, 6)]
    running = balancer(net, config(*services, queue=LIMITED))
    carried = Carried(running)
    clients = {family: opened(net.client, family, socket.SOCK_DGRAM) for family in (4, 6)}

    def ask_it(family: int) -> bytes:
        clients[family].send(b"who")
        return clients[family].recv(100)

    names = {}
    for family, client in clients.items():
        client.connect((VIP[family], 5353))
        names[family] = ask_it(family)
        assert ask_it(family) == names[family]
        with carried.counting("carried", 2):
            assert ask_it(family) == names[family]
        forget = ["nft", "flush", "set", NFT_FAMILY[family], "paraglider-openings", "flows"]
        net.balancer.run(forget)  # as after a minute
    control(running).post("carrier", {"state": "off"})
    for family, client in clients.items():
        for _ in range(2):
            assert ask_it(family) == names[family]
        flood(net, family, 200, "udp", 5353)
        assert counted(net, family, "refused-udp") >= 150
        for _ in range(10):
            assert ask_it(family) == names[family]
        client.close()
