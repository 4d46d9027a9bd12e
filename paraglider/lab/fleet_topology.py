"""The lab's network of several balancers with the same VIPs, behind a router.

::

    client ── far ── router ─┬─ front ─┬─ eth0 lb1 eth1 ─┬─ switch ─┬─ eth0 backend1
                             │         ├─ eth0 lb2 eth1 ─┤          ├─ eth0 backend2
                             │         └─ …              …          └─ eth0 backend3
                             └─ eth1 of the backends, their default route unless ``answer_by``

The VIPs are routed: the router has a route to each, over some of the balancers, by the hash of a
packet's addresses and ports (a namespace's own hash follows the sender's socket, which gives a flow
another path when it is repeated). The link of the far router to the client takes packets of at most
``mtu`` bytes, of which the client knows nothing.

Lives here: the addresses, and ``FleetTopology``.
Rules: balancers and backends have numbers from 1. A cable is pulled at the bridge's end, so that
the other end keeps its addresses, as a host does. ``close`` removes everything that was built, also
after a failure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from paraglider.lab import namespace
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

VIP = {4: "203.0.113.11", 6: "2001:db8:f::11"}
CLIENTS = {
    4: [f"198.51.100.{number}" for number in range(100, 124)],
    6: [f"2001:db8:1::{number}" for number in range(100, 124)],
}
WIDTH = {4: 24, 6: 64}
BITS = {4: 32, 6: 128}
ROUTER = {4: "192.168.0.254", 6: "2001:db8::254"}
_NETWORK = {4: "198.51.100.0/24", 6: "2001:db8:1::/64"}
_NEAR = {4: "198.51.100.254", 6: "2001:db8:1::254"}  # of the far router, for the client
_FAR = {4: "198.18.0.1", 6: "2001:db8:2::1"}  # of the far router, for the other one
_BETWEEN = {4: "198.18.0.2", 6: "2001:db8:2::2"}  # of the router, for the far one
_FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def front_address(family: int, number: int) -> str:
    """Of balancer ``number``; backends have 51, 52, …"""
    return f"192.168.0.{number}" if family == 4 else f"2001:db8::{number}"


def back_address(family: int, number: int) -> str:
    """Of backend ``number``; balancers have 201, 202, …"""
    return f"10.0.0.{number}" if family == 4 else f"fd00:10::{number}"


class FleetTopology:
    """``count`` balancers and ``backends``; the constructor builds it. Raises ``PlatformError``
    when the kernel refuses, after removing the parts already built.
    """

    def __init__(
        self, count: int, *, backends: int = 3, mtu: int = 1500, prefix: str | None = None
    ) -> None:
        self.prefix = prefix or new_prefix()
        lbs = [f"lb{number}" for number in range(1, count + 1)]
        names = [f"backend{number}" for number in range(1, backends + 1)]
        roles = ["client", "far", "router", "front", "switch", *lbs, *names]
        self._made = namespace.create(f"{self.prefix}-{role}" for role in roles)
        by_role = dict(zip(roles, self._made, strict=True))
        self.client, self.router = by_role["client"], by_role["router"]
        self.hosts = [by_role[role] for role in lbs]
        self.backends = [by_role[role] for role in names]
        self._bridges = by_role["front"], by_role["switch"]
        try:
            self._connect_client(by_role["far"], mtu)
            self._connect(*self._bridges)
            self.answer_by(ROUTER)
        except BaseException:
            self.close()
            raise

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All of them."""
        return tuple(self._made)

    def lead(self, family: int, numbers: Iterable[int]) -> None:
        """Have the router send packets to the VIP to the balancers ``numbers``; without any it has
        no route.
        """
        hops = " ".join(f"nexthop via {front_address(family, number)}" for number in numbers)
        vip = f"{VIP[family]}/{BITS[family]}"
        self.router.batch(f"route replace {vip} {hops}" if hops else f"route delete {vip}")

    def lead_via(self, addresses: Mapping[int, str]) -> None:
        """Have the router send packets to the VIPs to ``addresses``, one of each family."""
        for family, address in addresses.items():
            self.router.batch(f"route replace {VIP[family]}/{BITS[family]} via {address}")

    def answer_by(self, addresses: Mapping[int, str]) -> None:
        """Have the backends answer through ``addresses``, one of each family."""
        for address, backend in itertools.product(addresses.values(), self.backends):
            backend.batch(f"route replace default via {address}")

    def plug(self, number: int, *, into: bool) -> None:
        """Plug both cables of balancer ``number`` in, or pull them."""
        for bridge in self._bridges:
            bridge.batch(f"link set lb{number} {'up' if into else 'down'}")

    def close(self) -> None:
        """End all processes in the namespaces and remove these; may be called again."""
        namespace.close(*self._made)
        namespace.remove_all(self.prefix)

    def _connect_client(self, far: Namespace, mtu: int) -> None:
        self._cable(self.client, "eth0", far, "eth1")
        self._cable(far, "eth0", self.router, "eth1")
        far.sysctl(*_FORWARDING)
        for family in (4, 6):
            width = f"/{WIDTH[family]}{' nodad' if family == 6 else ''}"
            self.client.ip(
                *(f"address add {each}{width} dev eth0" for each in CLIENTS[family]),
                f"route add default via {_NEAR[family]}",
            )
            far.ip(
                f"address add {_NEAR[family]}{width} dev eth1",
                f"address add {_FAR[family]}{width} dev eth0",
                f"route add default via {_BETWEEN[family]}",
            )
            self.router.ip(
                f"address add {_BETWEEN[family]}{width} dev eth1",
                f"route add {_NETWORK[family]} via {_FAR[family]}",
            )
        far.ip(f"link set eth1 mtu {mtu}")

    def _connect(self, front: Namespace, switch: Namespace) -> None:
        for bridge in (front, switch):
            bridge.ip("link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
        self._join(self.router, "eth0", front, "router")
        self.router.sysctl(
            *_FORWARDING,
            *(f"net.{ip}.fib_multipath_hash_policy=3" for ip in ("ipv4", "ipv6")),
            *(f"net.{ip}.fib_multipath_hash_fields=0x37" for ip in ("ipv4", "ipv6")),
        )
        for number, host in enumerate(self.hosts, 1):
            self._join(host, "eth0", front, f"lb{number}")
            self._join(host, "eth1", switch, f"lb{number}")
        for number, backend in enumerate(self.backends, 1):
            self._join(backend, "eth0", switch, f"backend{number}")
            self._join(backend, "eth1", front, f"backend{number}")
        for family in (4, 6):
            width = f"/{WIDTH[family]}{' nodad' if family == 6 else ''}"
            self.router.ip(f"address add {ROUTER[family]}{width} dev eth0")
            for number, host in enumerate(self.hosts, 1):
                host.ip(
                    f"address add {front_address(family, number)}{width} dev eth0",
                    f"address add {back_address(family, 200 + number)}{width} dev eth1",
                    f"route add default via {ROUTER[family]}",
                )
            for number, backend in enumerate(self.backends, 1):
                backend.ip(
                    f"address add {back_address(family, number)}{width} dev eth0",
                    f"address add {front_address(family, 50 + number)}{width} dev eth1",
                )

    @staticmethod
    def _cable(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
        one.ip(f"link add {name} type veth peer name {other_name} netns {other.name}")
        one.ip(f"link set {name} up")
        other.ip(f"link set {other_name} up")

    def _join(self, one: Namespace, name: str, bridge: Namespace, port: str) -> None:
        self._cable(one, name, bridge, port)
        bridge.ip(f"link set {port} master br0")
