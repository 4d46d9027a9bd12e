"""The kernel alone: plain routing, DNAT by iptables, the reference of all ratios, and IPVS.

Routing and DNAT are there over three backends and over one, since three servers on few cores cost
more than one.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

from bench.network import BACKENDS, HTTP_PORT, IPERF_PORT, VIP, Stage
from bench.peers.base import Peer
from bench.results import REFERENCE, REFERENCE_DIRECT
from paraglider.errors import OperatorError, ParagliderError
from paraglider.netfilter.programs import attempt, find_program

#: an address that all backends have, to which the router has a path by each
SHARED = "10.255.0.1"
#: the kernel's table of virtual services
IPVS = Path("/proc/net/ip_vs")


class Routed(Peer):
    """No balancer: the client calls a backend, and the balancer's namespace is a router."""

    name = "routed"
    title = "routed, no balancer, one backend"
    address = BACKENDS[0]
    backends = 1

    def start(self, stage: Stage) -> None:
        """Forward packets, without netfilter rules and so without conntrack."""
        stage.take_addresses()
        stage.topology.balancer.sysctl("net.ipv4.ip_forward=1")


class Multipath(Routed):
    """No balancer: the router spreads connections over equal paths (ECMP), by a hash of addresses
    and ports.
    """

    name = "routed-3"
    title = "routed by ECMP"
    address = SHARED
    backends = len(BACKENDS)
    quick = False
    cannot: ClassVar[dict[str, str]] = dict.fromkeys(
        ("bulk", "udp"), "one backend has the server, see the row of that"
    )

    def start(self, stage: Stage) -> None:
        """Give every backend the address, and the router a route with a path by each."""
        super().start(stage)
        for backend in stage.topology.backends:
            backend.ip(f"address add {SHARED}/32 dev lo")
        balancer = stage.topology.balancer
        balancer.sysctl("net.ipv4.fib_multipath_hash_policy=1")
        balancer.ip(f"route add {SHARED} " + " ".join(f"nexthop via {one}" for one in BACKENDS))


class RoutedOneWay(Routed):
    """No balancer: the router sees the client's packets only, as a balancer with direct return."""

    name = "routed-direct"
    title = "routed, answers bypass the router, one backend"
    direct = True
    quick = False


class Dnat(Peer):
    """The kernel's own balancing over the first ``backends`` backends: one DNAT rule each, chosen
    by ``-m statistic``. With ``direct`` in the network of direct return, where one switch more is
    between client and balancer; answers pass the balancer nevertheless.
    """

    def __init__(
        self, name: str = REFERENCE, backends: int = len(BACKENDS), *, direct: bool = False
    ) -> None:
        self.name = name
        self.backends = backends
        self.direct = direct
        self.quick = name in (REFERENCE, REFERENCE_DIRECT)
        more = [*(["one backend"] if backends == 1 else []), *(["a switch more"] if direct else [])]
        self.title = ", ".join(["kernel DNAT, iptables", *more])

    def start(self, stage: Stage) -> None:
        """Forward packets and install the rules."""
        stage.take_addresses()
        balancer = stage.topology.balancer
        balancer.sysctl("net.ipv4.ip_forward=1")
        rules = dnat_rules(BACKENDS[: self.backends])
        balancer.run(["iptables-restore", "--noflush"], text=rules)
        if self.direct:
            for backend in stage.topology.backends:
                backend.ip("link set eth1 down")


class Ipvs(Peer):
    """The kernel's virtual server (IPVS), method NAT, in turn. Some kernels do not have it."""

    name = "ipvs"
    title = "IPVS, NAT"

    def missing(self) -> str | None:
        """That the kernel does not have IPVS, or that ipvsadm is not installed."""
        with contextlib.suppress(ParagliderError):
            attempt(["modprobe", "-q", "ip_vs"])
        if not IPVS.exists():
            return "this kernel has no IPVS (ip_vs)"
        try:
            find_program("ipvsadm")
        except OperatorError as error:
            return error.what
        return None

    def start(self, stage: Stage) -> None:
        """Forward packets and add the virtual services."""
        stage.take_addresses()
        balancer = stage.topology.balancer
        balancer.sysctl("net.ipv4.ip_forward=1")
        balancer.run(["ipvsadm-restore"], text=ipvs_services())


def ipvs_services() -> str:
    """The services, as ``ipvsadm-restore`` reads them: HTTP in turn, iperf3 to one backend."""
    lines = []
    for kind, port, backends in (
        ("-t", HTTP_PORT, BACKENDS),
        ("-t", IPERF_PORT, BACKENDS[:1]),
        ("-u", IPERF_PORT, BACKENDS[:1]),
    ):
        lines.append(f"-A {kind} {VIP}:{port} -s rr")
        lines += [f"-a {kind} {VIP}:{port} -r {backend}:{port} -m" for backend in backends]
    return "".join(f"{line}\n" for line in lines)


def dnat_rules(backends: tuple[str, ...] = BACKENDS) -> str:
    """The rules, as ``iptables-restore`` reads them: HTTP in turn, iperf3 to the first backend."""
    lines = ["*nat"]
    for index, backend in enumerate(backends):
        left = len(backends) - index  # the last one takes what the others left
        turn = f" -m statistic --mode nth --every {left} --packet 0" if left > 1 else ""
        lines.append(
            f"-A PREROUTING -d {VIP} -p tcp --dport {HTTP_PORT}{turn} -j DNAT"
            f" --to-destination {backend}"
        )
    lines += [
        f"-A PREROUTING -d {VIP} -p {protocol} --dport {IPERF_PORT} -j DNAT"
        f" --to-destination {backends[0]}"
        for protocol in ("tcp", "udp")
    ]
    return "\n".join([*lines, "COMMIT", ""])
