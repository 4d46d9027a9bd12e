"""The lab's network: client, balancer and backends as namespaces, IPv4 and IPv6.

::

    client ──────────────────── balancer ─────── switch ─┬─ backend1
      .100   [ router .254 ]   eth0    eth1       br0    ├─ backend2
           192.168.0.0/24                   10.0.0.0/8   └─ backend3
           2001:db8::/64                  fd00:10::/64

With ``direct`` the backends have a second leg, ``eth1``, in the clients' network, so that their
answers bypass the balancer::

    client [ router ] ── front ─┬─ eth0 balancer eth1 ── switch ── eth0 backend1
                          br0   └───────────────────────────────── eth1 backend1 (.51), …

With ``far`` a router, ``gate``, is between the balancer and the switch::

    balancer eth1 ──── eth0 gate eth1 ──── switch
       172.20.0.254  .1      10.0.0.254

Lives here: the addresses, ``Plan`` (the variations) and ``Topology`` (the built network).
Rules: the set-up adds the VIPs and the gateway addresses; a plan may preset them for tests without
the set-up. ``close`` removes everything that was built, also after a failure.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from paraglider.lab import namespace
from paraglider.lab.namespace import Namespace

CLIENT = {4: "192.168.0.100", 6: "2001:db8::100"}
BALANCER = {4: "192.168.0.1", 6: "2001:db8::1"}
VIP = {4: "192.168.0.11", 6: "2001:db8::11"}
GATEWAY = {4: "10.0.0.254", 6: "fd00:10::fe"}
PUBLIC_PREFIX = {4: 24, 6: 64}
PRIVATE_PREFIX = {4: 8, 6: 64}
NEAR = {4: "172.20.0.254", 6: "fd00:20::fe"}
GATE = {4: "172.20.0.1", 6: "fd00:20::1"}
ROUTER = {4: "192.168.0.254", 6: "2001:db8::254"}
ROUTED_CLIENT = {4: "198.51.100.100", 6: "2001:db8:1::100"}
ROUTED_GATEWAY = {4: "198.51.100.254", 6: "2001:db8:1::254"}

_LINK = {4: 24, 6: 64}
_BRIDGE_FILTERS = ("arptables", "iptables", "ip6tables")

_serial = itertools.count()


def backend_address(family: int, number: int) -> str:
    """The address of backend ``number`` (1, 2, …) in ``family`` (4 or 6)."""
    return f"10.0.0.{number}" if family == 4 else f"fd00:10::{number:x}"


def direct_address(family: int, number: int) -> str:
    """The address of backend ``number`` (1, 2, …) in the clients' network, with ``direct``."""
    return f"192.168.0.{50 + number}" if family == 4 else f"2001:db8::{50 + number}"


def new_prefix() -> str:
    """A prefix of namespace names that no other topology on this host has."""
    number = next(_serial)
    return f"pg{os.getpid()}" + (f".{number}" if number else "")


@dataclass(frozen=True)
class Plan:
    """The parameters of a topology; the MTUs are in bytes.

    ``clients`` is the number of addresses of the client in each family (.100, .101, …). ``router``
    puts a router between client and balancer: the client is then in a separate network
    (``ROUTED_CLIENT``), ``client_mtu`` is that of its link to the router, ``public_mtu`` that from
    the router to the balancer. ``private_mtu`` is that of the balancer's ``eth1``, ``backend_mtu``
    that of the backends. With a lower ``private_mtu`` the balancer sends Packet Too Big for
    uploads; it also drops longer packets that arrive there, so answers must be short. ``direct``
    connects the backends to the clients' network, with a router also by their default route.
    ``far`` puts a router between the balancer and the backends, ``private_mtu`` is then that of the
    balancer's link to it. ``vips`` are addresses with prefix to add to ``eth0``; ``gateways`` adds
    the gateway addresses to ``eth1``.
    """

    backends: int = 3
    clients: int = 1
    router: bool = False
    direct: bool = False
    far: bool = False
    client_mtu: int = 1500
    public_mtu: int = 1500
    private_mtu: int = 1500
    backend_mtu: int = 1500
    vips: tuple[str, ...] = ()
    gateways: bool = False


class Topology:
    """The namespaces of one ``plan``: ``client``, ``balancer``, ``backends`` (and ``router``).

    The constructor builds it; a context manager. Raises ``PlatformError`` when the kernel refuses,
    after removing the parts already built.
    """

    client: Namespace
    balancer: Namespace
    switch: Namespace
    front: Namespace | None = None
    router: Namespace | None = None
    gate: Namespace | None = None

    def __init__(self, plan: Plan | None = None, *, prefix: str | None = None) -> None:
        self.plan = plan or Plan()
        self.prefix = prefix or new_prefix()
        self.backends: list[Namespace] = []
        self._made: list[Namespace] = []
        self._links: dict[Namespace, list[str]] = defaultdict(list)  # lines of `ip`, see _build
        self._lines: dict[Namespace, list[str]] = defaultdict(list)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes in the namespaces and remove these; may be called again."""
        namespace.close(*self._made)
        self._made.clear()
        namespace.remove_all(self.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All of them, in the order they were made."""
        return tuple(self._made)

    def client_address(self, family: int, number: int = 0) -> str:
        """The address ``number`` (0, 1, …) of the client in ``family``."""
        base = (ROUTED_CLIENT if self.plan.router else CLIENT)[family]
        return base[:-3] + str(100 + number)

    def _build(self) -> None:
        self._create()
        self._connect_public()
        self._connect_private()
        if self.plan.direct:
            self._connect_direct()
        # Links first: the other end of a pair may be in a namespace that comes later.
        for lines in (self._links, self._lines):
            for made, given in lines.items():
                made.batch(*given)
        for made in self._made:
            made.await_routed()

    def _create(self) -> None:
        plan = self.plan
        parts = {"router": plan.router, "front": plan.direct, "gate": plan.far, "switch": True}
        backends = [f"backend{number}" for number in range(1, plan.backends + 1)]
        roles = ["balancer", "client", *(role for role, used in parts.items() if used), *backends]
        self._made += namespace.create(f"{self.prefix}-{role}" for role in roles)
        for role, made in zip(roles, self._made, strict=True):
            if role in backends:
                self.backends.append(made)
            else:
                setattr(self, role, made)
        # A switch does not filter: where br_netfilter is loaded, it would pass frames to iptables.
        filters = [f"net.bridge.bridge-nf-call-{name}=0" for name in _BRIDGE_FILTERS]
        for bridge in filter(None, (self.front, self.switch)):
            bridge.sysctl(*filters, missing_ok=True)
            self._links[bridge] += [
                "link add br0 type bridge stp_state 0 mcast_snooping 0",
                "link set br0 up",
            ]

    def _connect_public(self) -> None:
        plan, client, balancer = self.plan, self.client, self.balancer
        near = client
        if self.router is not None:
            near = self.router
            near.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            self._join(client, "eth0", near, "eth1", plan.client_mtu)
            self._lines[near] += [_address(ROUTED_GATEWAY, family, "eth1") for family in (4, 6)]
        mtu = plan.public_mtu if plan.router else plan.client_mtu
        if self.front is not None:
            self._plug(near, "eth0", self.front, "client", mtu)
            self._plug(balancer, "eth0", self.front, "balancer", mtu)
        else:
            self._join(near, "eth0", balancer, "eth0", mtu)
        for number, family in itertools.product(range(plan.clients), (4, 6)):
            address = f"{self.client_address(family, number)}/{PUBLIC_PREFIX[family]}"
            self._lines[client].append(f"address add {address} dev eth0{_nodad(family)}")
        self._lines[balancer] += [
            *(_address(BALANCER, family, "eth0") for family in (4, 6)),
            *(f"address add {vip} dev eth0{_nodad(6 if ':' in vip else 4)}" for vip in plan.vips),
        ]
        if plan.router:
            for family in (4, 6):
                self._lines[near].append(_address(ROUTER, family, "eth0"))
                self._lines[client].append(f"route add default via {ROUTED_GATEWAY[family]}")
                self._lines[balancer].append(f"route add default via {ROUTER[family]}")

    def _connect_private(self) -> None:
        plan, balancer = self.plan, self.balancer
        if self.gate is not None:
            self._connect_gate(self.gate)
        else:
            self._plug(balancer, "eth1", self.switch, "balancer", plan.backend_mtu)
            self._lines[balancer].append(f"link set eth1 mtu {plan.private_mtu}")
        if plan.gateways:
            self._lines[balancer] += [_address(GATEWAY, family, "eth1") for family in (4, 6)]
        for number, backend in enumerate(self.backends, 1):
            self._plug(backend, "eth0", self.switch, f"backend{number}", plan.backend_mtu)
            for family in (4, 6):
                address = f"{backend_address(family, number)}/{PRIVATE_PREFIX[family]}"
                self._lines[backend] += [
                    f"address add {address} dev eth0{_nodad(family)}",
                    f"route add default via {GATEWAY[family]}",
                ]

    def _connect_gate(self, gate: Namespace) -> None:
        plan, balancer = self.plan, self.balancer
        gate.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self._join(balancer, "eth1", gate, "eth0", plan.private_mtu)
        self._plug(gate, "eth1", self.switch, "gate", plan.backend_mtu)
        for family in (4, 6):
            self._lines[gate] += [
                f"address add {GATE[family]}/{_LINK[family]} dev eth0{_nodad(family)}",
                _address(GATEWAY, family, "eth1"),
                f"route add default via {NEAR[family]}",
            ]
            network = f"{backend_address(family, 0)}/{PRIVATE_PREFIX[family]}"
            self._lines[balancer] += [
                f"address add {NEAR[family]}/{_LINK[family]} dev eth1{_nodad(family)}",
                f"route add {network} via {GATE[family]}",
            ]

    def _connect_direct(self) -> None:
        plan = self.plan
        assert self.front is not None  # noqa: S101 - made with the clients' side
        for number, backend in enumerate(self.backends, 1):
            mtu = plan.public_mtu if plan.router else plan.client_mtu
            self._plug(backend, "eth1", self.front, f"backend{number}", mtu)
            for family in (4, 6):
                address = f"{direct_address(family, number)}/{PUBLIC_PREFIX[family]}"
                self._lines[backend].append(f"address add {address} dev eth1{_nodad(family)}")
                if plan.router:
                    self._lines[backend].append(f"route replace default via {ROUTER[family]}")

    def _plug(self, end: Namespace, device: str, switch: Namespace, port: str, mtu: int) -> None:
        self._join(switch, port, end, device, mtu)
        self._links[switch].append(f"link set {port} master br0")

    def _join(
        self, left: Namespace, left_end: str, right: Namespace, right_end: str, mtu: int
    ) -> None:
        self._links[left] += _veth(left_end, right, right_end, mtu)
        self._lines[right].append(f"link set {right_end} up")


def join(left: Namespace, left_end: str, right: Namespace, right_end: str, mtu: int) -> None:
    """A veth pair between two namespaces, both ends up, with ``mtu`` bytes."""
    left.ip(*_veth(left_end, right, right_end, mtu))
    right.ip(f"link set {right_end} up")


def _veth(left_end: str, right: Namespace, right_end: str, mtu: int) -> list[str]:
    peer = f"peer name {right_end} mtu {mtu} netns {right.name}"
    return [f"link add {left_end} mtu {mtu} type veth {peer}", f"link set {left_end} up"]


def _address(table: dict[int, str], family: int, device: str) -> str:
    prefix = (PRIVATE_PREFIX if table is GATEWAY else PUBLIC_PREFIX)[family]
    return f"address add {table[family]}/{prefix} dev {device}{_nodad(family)}"


def _nodad(family: int) -> str:
    return " nodad" if family == 6 else ""
