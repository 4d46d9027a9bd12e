"""Helpers of the end-to-end tests of dsr and tunnels: backends with the VIP, their request counts,
and connections that go on.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from evenly import EVEN, assert_even
from inside import InsideBalancer
from services import http_service
from sharing import FLOWS, vip
from waiting import TIMEOUT, wait_until

from paraglider.lab import direct
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.scenario import neighbouring_cores
from paraglider.lab.topology import VIP, Topology

FAMILIES = [4, 6]
PEER = Path(__file__).parent / "peer.py"


def service(family: int, carrier: str = "", **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, by dsr; its flows have the ``carrier``, or the default."""
    chosen = {"carrier": carrier} if carrier else {}
    return http_service(family, **{"forward": "dsr", **chosen, **changes})


def directed(topology: Any, **plan: Any) -> Topology:
    """A network whose backends hold the VIPs and have a way to the clients of their own."""
    net: Topology = topology(direct=True, **plan)
    hold_vips(net)
    return net


def hold_vips(net: Topology, count: int = 1) -> None:
    """Give the backends of ``net`` the first ``count`` VIPs of either family."""
    held = [vip(family, number) for family in FAMILIES for number in range(1, count + 1)]
    for backend in net.backends:
        # What `paraglider backend-setup` does (``test_backend_setup``), without its state to undo.
        backend.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        backend.ip(*(f"address add {address} dev lo" for address in held))


def configuration(directory: Path, services: Sequence[dict[str, Any]]) -> str:
    """A file with ``services`` for two workers, whose sockets are in ``directory``."""
    first, last = neighbouring_cores(2, frozenset(os.sched_getaffinity(0)))
    document = {
        "workers": {"first_core": first, "last_core": last},
        "chroot": str(directory / "empty"),
        "flows": {"max": FLOWS},
        "control": {"socket": str(directory / "control.sock")},
        "network": {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}},
        "services": list(services),
    }
    return yaml.safe_dump(document, sort_keys=False)


@contextmanager
def working(
    net: Topology, directory: Path, services: Sequence[dict[str, Any]]
) -> Iterator[InsideBalancer]:
    """A balancer for a whole module, with ``configuration``; the backends of ``net`` are set up by
    the operator's command. It must end well.
    """
    for name in ("empty", "balancer"):
        (directory / name).mkdir()
    text = configuration(directory, services)
    running = InsideBalancer(net.balancer, directory / "balancer", text)
    running.set_up()
    try:
        direct.set_up(net.backends, running.config, [service["name"] for service in services])
        running.start()
        yield running
        code = running.stop()
        assert code == 0, f"exit code {code}\n{running.log()}"
        assert not running.trouble(), running.log()
    finally:
        for backend in net.backends:
            direct.undo(backend, running.config)
        running.undo()
        running.close()


def answers_by(net: Topology) -> int:
    """Bytes that the balancer has sent to the clients' network so far."""
    text = net.balancer.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout
    return int(text)


def assert_shares(net: Topology, ask: Any, workers: int) -> None:
    """Of 30 flows over TCP, and over UDP, each backend has ten, or some with several workers."""
    for family in FAMILIES:
        for protocol, port in (("tcp", 80), ("udp", 5353)):
            if workers == 1:
                assert_even(ask, net, protocol, VIP[family], port)
            else:
                assert set(ask(net, protocol, VIP[family], port, 30)) == set(EVEN)


def behind_a_narrow_link(topology: Any, serve_peer: Any) -> Topology:
    """A network whose router to the clients has an MTU of 1400, and reports it without a limit."""
    net = directed(topology, router=True)
    assert net.router is not None
    net.router.ip("link set eth1 mtu 1400")
    serve_peer(net, 80)
    for namespace in net.namespaces:
        namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    return net


def assert_one_backend_learns(net: Topology, peer: Any) -> None:
    """The router's error about a download reaches the backend that sends it, and no other."""
    for family in FAMILIES:
        result = peer(net.client, "down", VIP[family], 80, 1_000_000)
        assert result["arrived"] == result["sent"]
        to = net.client_address(family)
        learnt = ["mtu 1400" in b.run(["ip", "route", "get", to]).stdout for b in net.backends]
        assert learnt.count(True) == 1


def leases(net: Topology, family: int, address: str) -> int:
    """How many leases the kernel holds of flows to the VIP ``address``."""
    name = {4: "ip", 6: "ip6"}[family]
    done = net.balancer.run(["nft", "-j", "list", "table", name, "paraglider-dsr"])
    items = json.loads(done.stdout)["nftables"]
    held = [each for item in items for each in item.get("set", {}).get("elem", ())]
    return sum(address in each["elem"]["val"]["concat"] for each in held)


class Rounds:
    """A connection of the client, to the VIP unless there is an ``address``, that moves ``size``
    bytes up and down until it is ended.
    """

    def __init__(
        self,
        net: Topology,
        family: int,
        output: Path,
        address: str = "",
        port: int = 80,
        size: int = 100_000,
    ) -> None:
        self._output = output
        where = [address or VIP[family], str(port), str(size)]
        command = [sys.executable, str(PEER), "rounds", *where]
        with output.open("wb") as file:
            self._process = net.client.popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
            )

    def await_more(self, running: LabBalancer) -> None:
        """Wait until two more rounds are done: one of them began after now."""
        before = self._done()
        wait_until(
            lambda: self._process.poll() is not None or self._done() >= before + 2, running.log
        )
        assert self._process.poll() is None, self._output.read_text()

    def await_end(self, seconds: float = TIMEOUT) -> Any:
        """Its result, within ``seconds``."""
        self._process.wait(seconds)
        return json.loads(self._output.read_text().splitlines()[-1])

    def end(self) -> None:
        """End it; all rounds were complete."""
        self._process.communicate(b"\n", timeout=TIMEOUT)
        assert "rounds" in json.loads(self._output.read_text().splitlines()[-1])

    def _done(self) -> int:
        return self._output.read_text().count("\n")
