"""Peers: the load balancers and forward methods that are compared. A further one is one entry.

- **kernel**: plain routing, and DNAT by iptables.
- **proxies**: HAProxy and nginx.
- **paraglider**: this project's forward methods.
"""

from __future__ import annotations

from bench.builds import COMPILED, INTERPRETED
from bench.peers.base import Peer
from bench.peers.kernel import Dnat, Routed
from bench.peers.paraglider import Paraglider, Proxied
from bench.peers.proxies import HAProxy, NginxStream

_PEERS: tuple[Peer, ...] = (
    Routed(),
    Dnat(),
    HAProxy(),
    NginxStream(),
    Paraglider("nat-netfilterqueue-pure", io="netfilterqueue", build=INTERPRETED),
    Paraglider("nat-netfilterqueue", io="netfilterqueue", build=COMPILED, quick=False),
    Paraglider("nat-netlink-pure", io="netlink", build=INTERPRETED),
    Paraglider("nat-netlink", io="netlink", build=COMPILED),
    Paraglider("nat-netlink-2", io="netlink", build=COMPILED, workers=2, quick=False),
    Paraglider("nat-direct", io="netlink", build=COMPILED, direct=True, quick=False),
    Paraglider("offload", forward="offload", build=COMPILED),
    Paraglider("dsr", forward="dsr", build=COMPILED, direct=True),
    Proxied("proxy"),
    Paraglider("static", forward="static", build=COMPILED),
)

#: all of them by name, in the order they are shown
PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}

__all__ = ["PEERS", "Peer"]
