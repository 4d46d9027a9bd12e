"""The kernel alone: plain routing, and DNAT by iptables, the reference of all ratios."""

from __future__ import annotations

from bench.network import BACKENDS, HTTP_PORT, IPERF_PORT, VIP, Stage
from bench.peers.base import Peer


class Routed(Peer):
    """No balancer: the client calls a backend, and the balancer's namespace is a router."""

    name = "routed"
    title = "routed, no balancer"
    address = BACKENDS[0]
    backends = 1

    def start(self, stage: Stage) -> None:
        """Forward packets; no netfilter rule is there, so conntrack is not at work."""
        stage.take_addresses()
        stage.topology.balancer.sysctl("net.ipv4.ip_forward=1")


class Dnat(Peer):
    """The kernel's own balancing: one DNAT rule a backend, chosen by ``-m statistic``."""

    name = "dnat"
    title = "kernel DNAT, iptables"

    def start(self, stage: Stage) -> None:
        """Forward packets and install the rules."""
        stage.take_addresses()
        balancer = stage.topology.balancer
        balancer.sysctl("net.ipv4.ip_forward=1")
        balancer.run(["iptables-restore", "--noflush"], text=dnat_rules())


def dnat_rules() -> str:
    """The rules, as ``iptables-restore`` reads them: HTTP in turn, iperf3 to the first backend."""
    lines = ["*nat"]
    for index, backend in enumerate(BACKENDS):
        left = len(BACKENDS) - index  # the last one takes what the others left
        turn = f" -m statistic --mode nth --every {left} --packet 0" if left > 1 else ""
        lines.append(
            f"-A PREROUTING -d {VIP} -p tcp --dport {HTTP_PORT}{turn} -j DNAT"
            f" --to-destination {backend}"
        )
    lines += [
        f"-A PREROUTING -d {VIP} -p {protocol} --dport {IPERF_PORT} -j DNAT"
        f" --to-destination {BACKENDS[0]}"
        for protocol in ("tcp", "udp")
    ]
    return "\n".join([*lines, "COMMIT", ""])
