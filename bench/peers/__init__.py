"""Peers: the load balancers and forward methods that are compared. A further one is one entry.

- **kernel**: plain routing, DNAT by iptables over one backend and over three, and IPVS.
- **proxies**: HAProxy and nginx.
- **loaded**: the C++ program whose method ``nat`` is, and which has its row where it is built.
- **paraglider**: this project's forward methods.
"""

from __future__ import annotations

from bench.builds import COMPILED, INTERPRETED
from bench.peers.base import Peer
from bench.peers.kernel import Dnat, Ipvs, Multipath, Routed, RoutedOneWay
from bench.peers.loaded import Loaded
from bench.peers.paraglider import Paraglider, Proxied
from bench.peers.proxies import HAProxy, NginxStream
from bench.results import REFERENCE_DIRECT

_PEERS: tuple[Peer, ...] = (
    Routed(),
    RoutedOneWay(),
    Multipath(),
    Dnat("dnat-1", backends=1),
    Dnat(),
    Dnat(REFERENCE_DIRECT, direct=True),
    Ipvs(),
    HAProxy(),
    NginxStream(),
    Loaded(),
    Paraglider("nat-netfilterqueue-pure", io="netfilterqueue", build=INTERPRETED),
    Paraglider("nat-netfilterqueue", io="netfilterqueue", build=COMPILED, quick=False),
    Paraglider("nat-netlink-pure", io="netlink", build=INTERPRETED),
    Paraglider("nat-netlink", io="netlink", build=COMPILED),
    Paraglider("nat-netlink-2", io="netlink", build=COMPILED, workers=2, quick=False),
    Paraglider("nat-maglev", io="netlink", build=COMPILED, adopt="auto", quick=False),
    Paraglider("nat-maglev-never", io="netlink", build=COMPILED, adopt="never", quick=False),
    Paraglider("nat-direct", io="netlink", build=COMPILED, direct=True, quick=False),
    Paraglider("nat-bpf", build=COMPILED, bpf=True, decide="python"),
    Paraglider("nat-bpf-decides", build=COMPILED, bpf=True),
    Paraglider("nat-bpf-2", build=COMPILED, bpf=True, decide="python", workers=2, quick=False),
    Paraglider(
        "nat-bpf-direct", build=COMPILED, bpf=True, decide="python", direct=True, quick=False
    ),
    Paraglider("offload", forward="offload", build=COMPILED),
    Paraglider("dsr", forward="dsr", build=COMPILED, direct=True),
    Paraglider("dsr-bpf", forward="dsr", build=COMPILED, direct=True, bpf=True, decide="python"),
    Paraglider("dsr-hash", forward="dsr", build=COMPILED, direct=True, bpf=True, decide="hash"),
    Paraglider("tunnel", forward="tunnel", build=COMPILED, direct=True, quick=False),
    Paraglider(
        "tunnel-bpf",
        forward="tunnel",
        build=COMPILED,
        direct=True,
        bpf=True,
        decide="python",
        quick=False,
    ),
    Paraglider(
        "tunnel-hash",
        forward="tunnel",
        build=COMPILED,
        direct=True,
        bpf=True,
        decide="hash",
        quick=False,
    ),
    Proxied("proxy"),
    Paraglider("static", forward="static", build=COMPILED),
)

#: all of them by name, in the order they are shown
PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}

__all__ = ["PEERS", "Peer"]
