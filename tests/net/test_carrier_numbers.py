"""The numbers of carried flows: packets and bytes are those that a backend's firewall counts."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from carrying import both, opened
from clients import Client
from counting import connections
from processes import workers
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root

PORT, SIZE = 9000, 50_000
TABLES = {4: "iptables", 6: "ip6tables"}
RULES = {"in": ("INPUT", "--dport"), "out": ("OUTPUT", "--sport")}

Numbers = dict[int, tuple[int, int, int, int]]


def count_in(backend: Namespace, protocol: str) -> None:
    """Have the backend's firewall count the packets of ``PORT``."""
    for program in TABLES.values():
        for chain, port in RULES.values():
            backend.run([program, "-A", chain, "-p", protocol, port, str(PORT)])


def counted(backend: Namespace) -> Numbers:
    """By family: packets and bytes that the backend's firewall counted in, and out."""
    found = {}
    for family, program in TABLES.items():
        numbers: list[int] = []
        for chain, port in RULES.values():
            text = backend.run([program, "-nvxL", chain]).stdout
            (line,) = re.findall(rf"^ *(\d+) +(\d+) .*{port[2]}pts?:{PORT}", text, re.MULTILINE)
            numbers += map(int, line)
        found[family] = (numbers[0], numbers[1], numbers[2], numbers[3])
    return found


def shown(daemon: ControlClient, kind: str = "tcp") -> Numbers:
    """The same as the balancer has it."""
    rows = {row["service"]: row for row in daemon.get("backends")}
    names = ("packets_in", "bytes_in", "packets_out", "bytes_out")
    return {
        family: tuple(rows[f"{kind}{family}"][name] or 0 for name in names) for family in TABLES
    }


def less(after: Numbers, before: Numbers) -> Numbers:
    """What has been added."""
    return {
        family: tuple(a - b for a, b in zip(after[family], before[family], strict=True))
        for family in after
    }


def test_every_packet_is_counted_once(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """By a worker or by BPF: the sums are the backend's, also after the death of a worker, and
    those of the next daemon begin with it. A listed flow has the packets that BPF carried.
    """
    net = topology(backends=1)
    serve_peer(net, PORT)
    (backend,) = net.backends
    for namespace in (net.client, backend):
        namespace.ip("link set eth0 gso_max_segs 1")  # a packet is one everywhere
    count_in(backend, "tcp")
    services = [
        service(family, name=f"tcp{family}", ports=PORT, backends=1, carrier="bpf")
        for family in TABLES
    ]
    running = balancer(net, config(*services), trouble=True)
    daemon = ControlClient(str(tmp_path / "control.sock"))

    def work(name: str) -> None:
        """A connection of each family that transfers something, ends, and is counted."""
        clients = [
            Client(net.client, tmp_path / f"{name}{family}", "rounds", VIP[family], PORT, SIZE)
            for family in TABLES
        ]
        for client in clients:
            wait_until(lambda client=client: len(client.lines()) >= 6, running.log)

        def listed() -> bool:
            """Both with their packets, and those of the time before as ended."""
            flows = daemon.get("flows")["flows"]
            live = [flow for flow in flows if flow["state"] == "established"]
            return [flow["carrier"] for flow in live] == ["bpf", "bpf"] and all(
                flow["packets_in"] > 10 and flow["packets_out"] > 10 for flow in live
            )

        wait_until(listed, lambda: str(daemon.get("flows")["flows"]))
        assert [client.end().startswith('{"rounds": ') for client in clients] == [True, True]
        # The backend's FIN and its ACK are to come, or the numbers may agree before them.
        wait_until(lambda: not connections(backend, PORT), running.log)

    def await_agreement() -> None:
        """Wait until the balancer and the backend have counted the same since ``begun``."""

        def both() -> tuple[Numbers, Numbers]:
            return shown(daemon), less(counted(backend), begun)

        wait_until(lambda: len(set(map(str, both()))) == 1, both)

    begun = counted(backend)
    work("first")
    await_agreement()
    before = shown(daemon)
    assert min(map(min, before.values())) > 10
    carried = daemon.get("carrier")["packets"]["carried"]
    (row,) = [row for row in daemon.get("workers") if row["role"] == "worker"]
    assert carried > 10 * row["packets"]

    dead = workers(running)
    os.kill(dead[0], signal.SIGKILL)
    wait_until(lambda: workers(running) not in ([], dead), running.log)
    wait_until(lambda: daemon.get("health")["healthy"], running.log)
    assert shown(daemon) == before
    work("second")
    await_agreement()

    running.stop()
    begun = counted(backend)
    running.start()
    work("third")
    await_agreement()


@both
def test_every_datagram_is_counted_once(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Of the first, which a worker sees, and of those that BPF carries: packets, bytes, and flows
    are the backend's and the client's.
    """
    net = topology(backends=1)
    serve(net, http=(), udp=(PORT,))
    (backend,) = net.backends
    count_in(backend, "udp")
    services = [
        service(family, name=f"udp{family}", protocol="udp", ports=PORT, backends=1)
        for family in TABLES
    ]
    running = balancer(net, config(*services))
    daemon = ControlClient(str(tmp_path / "control.sock"))
    clients = {f: [opened(net.client, f, socket.SOCK_DGRAM) for _ in range(3)] for f in TABLES}
    for family, sockets in clients.items():
        for size, client in enumerate(sockets):
            client.connect((VIP[family], PORT))
            for _ in range(10):
                client.send(b"x" * (1 + 500 * size))
                assert client.recv(2000).startswith(b"backend1 x")
    theirs = counted(backend)
    assert [theirs[family][0::2] for family in TABLES] == [(30, 30)] * 2
    wait_until(lambda: shown(daemon, "udp") == theirs, lambda: f"{shown(daemon, 'udp')} {theirs}")

    def flows() -> list[tuple[int, int]]:
        return [(row["conns"], row["flows"]) for row in daemon.get("backends")]

    wait_until(lambda: flows() == [(3, 3)] * 2, lambda: str(flows()))
    for client in (*clients[4], *clients[6]):
        client.close()
    assert running.stop() == 0
