"""The BPF carrier at XDP of veth: what it carries, its life, and next hops that change."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, opened
from clients import Client, await_rounds
from failing import control, rows
from waiting import wait_until

from paraglider.bpf import syscall
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology, backend_address
from tests.bpf.carrying import XDP_PASS
from tests.bpf.programs import XDP, returns
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
PAYLOAD = 1_000_000


@pytest.fixture
def carrier() -> str:
    """XDP carries in all tests of this file."""
    return "xdp"


@pytest.fixture
def ready(topology: Any) -> Topology:
    """A network whose links are ready for XDP."""
    net: Topology = topology(backends=1)
    ready_for_xdp(*net.namespaces)
    return net


def at_xdp(namespace: Namespace) -> set[str]:
    """The interfaces that have a program at XDP, by their drivers."""
    said = namespace.run(["ip", "-o", "link", "show"]).stdout
    return {re.split(r"[:@ ]+", line)[1] for line in said.splitlines() if " prog/xdp " in line}


def test_what_xdp_carries(
    ready: Topology, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """Transfers in both directions and families. Their packets are as long as the MTU at most,
    since links with XDP take no longer ones. The bytes of the backend are those of the transfer,
    an ended connection leaves no entry, and every answer has the carrier.
    """
    serve_peer(ready, 9000)
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = balancer(ready, config(*services))
    carried = Carried(running)
    assert at_xdp(ready.balancer) == {"eth0", "eth1"}
    for family in FAMILIES:
        name = backend_address(family, 1)
        for way in ("down", "up"):
            with carried.counting("xdp", 100):
                result = peer(ready.client, way, VIP[family], 9000, PAYLOAD)
                assert result["sent"] == result["arrived"]
        carried.until(lambda f=family: not carried.flags(6, f), "no entry")

        def shown(family: int = family, name: str = name) -> bool:
            row = rows(running, family)[name]
            moved = (row["bytes_in"] or 0, row["bytes_out"] or 0)
            return row["conns"] == 2 and all(PAYLOAD < one < 1.6 * PAYLOAD for one in moved)

        carried.until(shown, "the counters of the transfers")
    answer = control(running).get("carrier")
    assert (answer["carrier"], answer["xdp"], answer["no_xdp"]) == ("xdp", ["eth0", "eth1"], {})
    assert {row["carrier"] for row in control(running).get("services")} == {"xdp"}


def test_the_life_of_xdp(
    ready: Topology, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Connections go on while the carrier is switched, while the daemon is killed and started
    again, and where another program takes XDP of an interface: tc carries there. A stop and an
    undo leave nothing but that program.
    """
    serve_peer(ready, 9000)
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = balancer(ready, config(*services), trouble=True)
    busy = [
        Client(ready.client, tmp_path / f"client{family}", "rounds", VIP[family], 9000, 100_000)
        for family in FAMILIES
    ]
    await_rounds(busy, running)
    control(running).post("carrier", {"state": "off"})
    assert at_xdp(ready.balancer) == set()
    await_rounds(busy, running)
    control(running).post("carrier", {"state": "on"})
    assert at_xdp(ready.balancer) == {"eth0", "eth1"}
    await_rounds(busy, running)

    running.stop(signal.SIGKILL)
    assert at_xdp(ready.balancer) == {"eth0", "eth1"}
    await_rounds(busy, running)
    running.start()
    await_rounds(busy, running)
    wait_until(lambda: control(running).get("carrier")["flows"] == 2, running.log)

    control(running).post("carrier", {"state": "off"})
    theirs = returns(XDP_PASS, XDP)
    with ready.balancer.entered():
        link = syscall.attach_xdp(theirs, socket.if_nametoindex("eth0"))
    control(running).post("carrier", {"state": "on"})
    wait_until(lambda: "eth0" in control(running).get("carrier")["no_xdp"], running.log)
    answer = control(running).get("carrier")
    assert (answer["xdp"], answer["devices"]) == (["eth1"], ["eth0", "eth1"])
    assert "another program" in answer["no_xdp"]["eth0"]
    await_rounds(busy, running)

    assert [each.end().startswith('{"rounds": ') for each in busy] == [True] * 2
    running.stop()
    running.undo()
    assert at_xdp(ready.balancer) == {"eth0"}  # theirs
    for number in (theirs, link):
        os.close(number)
    assert at_xdp(ready.balancer) == set()


def test_a_next_hop_that_goes_stale(
    ready: Topology, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """XDP would send to its old MAC address without end; a packet that passes tc makes the kernel
    check the address, and the new one is found.
    """
    serve(ready, http=(), udp=(9053,))
    services = [service(f, protocol="udp", ports=9053, backends=1) for f in FAMILIES]
    running = balancer(ready, config(*services))
    carried = Carried(running)
    for name in ("ipv4", "ipv6"):
        ready.balancer.sysctl(
            f"net.{name}.neigh.eth1.delay_first_probe_time=1",
            f"net.{name}.neigh.eth1.retrans_time_ms=100",
        )
    for family in FAMILIES:
        sock = opened(ready.client, family, socket.SOCK_DGRAM)
        sock.settimeout(0.2)
        sock.connect((VIP[family], 9053))

        def answered(sock: socket.socket = sock) -> bool:
            sock.send(b"who")
            with contextlib.suppress(TimeoutError):
                return sock.recv(100) == b"backend1 who"
            return False

        def at_xdp_alone(answered: Any = answered) -> bool:
            before = carried.counted("xdp")
            return answered() and carried.counted("xdp") >= before + 2

        carried.until(at_xdp_alone, "a flow that XDP carries")
        backend = backend_address(family, 1)
        stale = f"neigh replace {backend} lladdr 02:00:00:00:00:99 dev eth1 nud stale"
        ready.balancer.ip(stale)
        carried.until(answered, "an answer after the address was checked")
        carried.until(at_xdp_alone, "a flow that XDP carries to the new address")
        sock.close()


def test_unfinished_checksums_pass_tc(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """Where a sender leaves them to its device, as veth's default is, and transfers are whole."""
    net = topology(backends=1)
    ready_for_xdp(net.balancer)
    serve_peer(net, 9000)
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    running = balancer(net, config(*services))
    carried = Carried(running)
    for family in FAMILIES:
        with carried.counting("unfinished", 100):
            result = peer(net.client, "down", VIP[family], 9000, PAYLOAD)
            assert result["sent"] == result["arrived"]
