"""The BPF carrier at work: what it carries and counts, deaths and switches under load, the end."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, mac, programs_at, wire
from clients import Client, await_rounds
from failing import control, rows
from processes import workers
from scapy.layers import inet
from waiting import TIMEOUT, wait_until

from paraglider.bpf import syscall
from paraglider.bpf.loader import load
from paraglider.host.bpffs import find_pins, names
from paraglider.host.carrier_support import PROGRAM, object_file
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)
PAYLOAD = 1_000_000
SWAPS = 20
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000  # linux/if_tun.h


@pytest.fixture
def carrier() -> str:
    """BPF carries in all tests of this file."""
    return "bpf"


def wrk(net: Topology) -> subprocess.Popen[bytes]:
    """Clients that send request after request over the same connections."""
    command = ["wrk", "-t1", "-c16", "-d1000s", "--timeout", "60s", f"http://{VIP[4]}/"]
    return net.client.popen(command, stdout=subprocess.PIPE)


def unharmed(load: subprocess.Popen[bytes]) -> int:
    """Stop a load; how many requests it had, none of which failed."""
    load.send_signal(signal.SIGINT)
    said = load.communicate(timeout=TIMEOUT)[0].decode()
    assert "errors" not in said, said
    assert "Non-2xx" not in said, said
    return int(re.findall(r"(\d+) requests in", said)[0])


def test_who_carries(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """BPF carries from the first packet on, and a worker what it may not; `show` has the packets
    and bytes of both. An ended connection leaves no entry.
    """
    net = topology(backends=1)
    serve_peer(net, 9000)
    services = [service(family, ports=9000, backends=1, decide="auto") for family in FAMILIES]
    running = balancer(net, config(*services))
    carried = Carried(running)
    carried.decide(2)
    for family in FAMILIES:
        name = backend_address(family, 1)
        with carried.carrying(PAYLOAD // 2):
            result = peer(net.client, "down", VIP[family], 9000, PAYLOAD)
            assert result["sent"] == result["arrived"]

        def shown(family: int = family, name: str = name) -> bool:
            row = rows(running, family)[name]
            bytes_out = row["bytes_out"] or 0
            return row["conns"] == 1 and PAYLOAD < bytes_out < 1.5 * PAYLOAD

        carried.until(shown, "the counters of the transfer")
        carried.until(lambda f=family: not carried.flags(6, f), "no entry")

    def told() -> bool:
        answer = control(running).get("carrier")
        packets = answer["packets"]
        assert (answer["carrier"], answer["reason"]) == ("bpf", "")
        return (
            {"eth0", "eth1"} <= set(answer["devices"])
            and packets["carried"] >= len(FAMILIES)
            and packets["opened"] >= len(FAMILIES)
        )

    carried.until(told, "the counters of the program")


def test_deaths_and_switches(
    topology: Any, serve: Any, serve_peer: Any, config: Any, service: Any, balancer: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Under full load and beside transfers of both families: every worker is killed, the carrier is
    switched off and on, the daemon is killed and stopped, the program is exchanged. No request
    fails, and every transfer goes on.
    """
    net = topology()
    serve(net, udp=())
    serve_peer(net, 9000)
    services = [service(family, ports=[80, 9000]) for family in FAMILIES]
    running = balancer(net, config(*services, workers=2), trouble=True)
    long = [
        Client(net.client, tmp_path / f"{family}-{n}", "rounds", VIP[family], 9000, 100_000)
        for family in FAMILIES
        for n in range(2)
    ]
    await_rounds(long, running)
    load = wrk(net)
    carried = Carried(running)

    for count, pid in enumerate(workers(running), 3):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda n=count: running.log().count('event="worker ready"') >= n, running.log)
        await_rounds(long, running)

    exchange(net, carried)
    with carried.carrying(100_000):
        await_rounds(long, running)

    for state in ("off", "on", "off", "on"):
        control(running).post("carrier", {"state": state})
        if state == "off":
            assert programs_at(net.balancer, "eth0") == programs_at(net.balancer, "eth1") == 0
            carried.until(lambda: not (carried.flags(6, 4) or carried.flags(6, 6)), "no entry")
        await_rounds(long, running)
    with carried.carrying(100_000):
        await_rounds(long, running)

    for how in (signal.SIGKILL, signal.SIGTERM):
        running.stop(how)
        with carried.carrying(100_000):  # while there is no daemon
            await_rounds(long, running)
        running.start()
        await_rounds(long, running)
    with Carried(running).carrying(100_000):
        await_rounds(long, running)
    assert unharmed(load) > 0
    assert [client.end().startswith('{"rounds": ') for client in long] == [True] * 4


def exchange(net: Topology, carried: Carried) -> None:
    """Put another program into the links, as a daemon of another version does, ``SWAPS`` times."""
    programs = [load(object_file(), PROGRAM, carried.maps.numbers) for _ in range(2)]
    with net.balancer.entered():
        pins = find_pins()
    assert pins is not None
    links = [syscall.pinned(pins, name) for name in names(pins) if name.startswith("link-")]
    assert len(links) >= 2
    for number in range(SWAPS):
        for link in links:
            syscall.update_link(link, programs[number % 2])
    for number in (*programs, *links, pins):
        os.close(number)


def test_a_flood_evicts_no_flow(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, tmp_path: Path
) -> None:
    """Forged SYNs fill the table in which connections are whose answers no worker has seen: BPF is
    asked for these before one is evicted, and they live on.
    """
    net = topology()
    serve_peer(net, 9000)
    text = config(service(4, ports=9000, decide="python"), flows={"max": 200})
    running = balancer(net, text, trouble=True)
    carried = Carried(running)
    idle = [Client(net.client, tmp_path / f"idle{n}", "pause", VIP[4], 9000) for n in range(8)]
    wait_until(lambda: all(client.lines() for client in idle), running.log)
    addresses = mac(net.balancer, "eth0") + mac(net.client, "eth0")
    head = bytes.fromhex(addresses.replace(":", "")) + b"\x08\x00"
    syns = [
        inet.IP(src=f"198.18.{n >> 8}.{n & 255}", dst=VIP[4])
        / inet.TCP(sport=1024 + n, dport=9000, flags="S", seq=n)
        for n in range(1000)
    ]
    frames = [head + bytes(syn) for syn in syns]
    with wire(net.client) as sock, carried.counting("syn", len(frames) // 2):  # some may be lost
        for frame in frames:
            sock.send(frame)
    assert [client.end() for client in idle] == ['{"arrived": 3}'] * 8


def test_a_bridge(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The private interface is a bridge, whose port leads to the backends: flows are carried by the
    bridge's program, and its port has none.
    """
    net = topology(backends=1)
    net.balancer.ip("link add lan type bridge", "link set lan up", "link set eth1 master lan")
    serve_peer(net, 9000)
    services = [service(family, ports=9000, backends=1) for family in FAMILIES]
    text = config(*services).replace("interface: eth1", "interface: lan")
    carried = Carried(balancer(net, text))
    assert (programs_at(net.balancer, "lan"), programs_at(net.balancer, "eth1")) == (1, 0)
    for family in FAMILIES:
        for verb in ("up", "down"):
            with carried.carrying(150_000):
                result = peer(net.client, verb, VIP[family], 9000, 300_000)
                assert result["sent"] == result["arrived"]


class Tunnel:
    """Two tun devices ``tun7``, in the balancer and in a backend, and what is between them."""

    def __init__(self, *ends: Namespace) -> None:
        self._ends = [self._open(end) for end in ends]
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._relay)

    @staticmethod
    def _open(end: Namespace) -> int:
        with end.entered():
            number = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", b"tun7", IFF_TUN | IFF_NO_PI))
        end.ip("link set tun7 up")
        return number

    def _relay(self) -> None:
        ends = dict(zip(self._ends, reversed(self._ends), strict=True))
        while self._stop not in (ready := select.select([*ends, self._stop], [], [])[0]):
            for end in ready:
                os.write(ends[end], os.read(end, 1 << 16))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        os.close(self._stopped)
        self._thread.join()
        for number in (*self._ends, self._stop):
            os.close(number)


def test_a_device_without_frames(
    topology: Any, serve_peer: Any, config: Any, service: Any, balancer: Any, peer: Any
) -> None:
    """The backends are behind a tunnel, whose packets have no Ethernet header: the program is not
    attached there, which the log says, and flows pass both ways.
    """
    net = topology(backends=1)
    (backend,) = net.backends
    serve_peer(net, 9000)
    with Tunnel(net.balancer, backend):
        backend.ip("address add 10.9.0.1/24 dev tun7", "route replace default dev tun7")
        web = service(4, ports=9000) | {"backends": ["10.9.0.1"]}
        text = config(web).replace("interface: eth1", "interface: tun7")
        running = balancer(net, text.replace("10.0.0.254/8", "10.9.0.254/24"))
        assert "interface tun7: packets that come in have no Ethernet header" in running.log()
        carried = Carried(running)
        assert (programs_at(net.balancer, "eth0"), programs_at(net.balancer, "tun7")) == (1, 0)
        for verb in ("up", "down"):
            with carried.counting("carried"):
                result = peer(net.client, verb, VIP[4], 9000, 300_000)
                assert result["sent"] == result["arrived"]
