"""The lab's network: client, balancer and backends as namespaces, IPv4 and IPv6.

::

    client ──────────────────── balancer ─────── switch ─┬─ backend1
      .100   [ router .254 ]   eth0    eth1       br0    ├─ backend2
           192.168.0.0/24                   10.0.0.0/8   └─ backend3
           2001:db8::/64                  fd00:10::/64

With ``direct`` the backends have a second leg, ``eth1``, in the clients' network, by which their
answers get past the balancer::

    client [ router ] ── front ─┬─ eth0 balancer eth1 ── switch ── eth0 backend1
                          br0   └───────────────────────────────── eth1 backend1 (.51), …

Lives here: the addresses, ``Plan`` (what may be varied) and ``Topology`` (what was built).
Rules: the VIPs and the gateway addresses are the set-up's to add; a plan may preset them where a
test does without the set-up. What was built is removed by ``close``, from wherever it failed.
"""

from __future__ import annotations

import itertools
import os
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
ROUTER = {4: "192.168.0.254", 6: "2001:db8::254"}
ROUTED_CLIENT = {4: "198.51.100.100", 6: "2001:db8:1::100"}
ROUTED_GATEWAY = {4: "198.51.100.254", 6: "2001:db8:1::254"}

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
    ``vips`` are addresses with prefix to add to ``eth0``; ``gateways`` adds the gateway addresses
    to ``eth1``.
    """

    backends: int = 3
    clients: int = 1
    router: bool = False
    direct: bool = False
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

    def __init__(self, plan: Plan | None = None, *, prefix: str | None = None) -> None:
        self.plan = plan or Plan()
        self.prefix = prefix or new_prefix()
        self.backends: list[Namespace] = []
        self._made: list[Namespace] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all processes in the namespaces and remove these; may be called again."""
        while self._made:
            self._made.pop().close()
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

    def _namespace(self, role: str) -> Namespace:
        made = Namespace(f"{self.prefix}-{role}")
        self._made.append(made)
        return made

    def _build(self) -> None:
        self.balancer = self._namespace("balancer")
        self.client = self._namespace("client")
        self._build_public()
        self._build_private()
        if self.plan.direct:
            self._build_direct()

    def _build_public(self) -> None:
        plan, client, balancer = self.plan, self.client, self.balancer
        near = client
        if plan.router:
            near = self.router = self._namespace("router")
            near.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            join(client, "eth0", near, "eth1", plan.client_mtu)
            near.ip(*(_address(ROUTED_GATEWAY, family, "eth1") for family in (4, 6)))
        mtu = plan.public_mtu if plan.router else plan.client_mtu
        if plan.direct:
            self.front = self._bridge("front")
            self._plug(near, "eth0", self.front, "client", mtu)
            self._plug(balancer, "eth0", self.front, "balancer", mtu)
        else:
            join(near, "eth0", balancer, "eth0", mtu)
        for number, family in itertools.product(range(plan.clients), (4, 6)):
            address = f"{self.client_address(family, number)}/{PUBLIC_PREFIX[family]}"
            client.ip(f"address add {address} dev eth0{_nodad(family)}")
        balancer.ip(
            *(_address(BALANCER, family, "eth0") for family in (4, 6)),
            *(f"address add {vip} dev eth0{_nodad(6 if ':' in vip else 4)}" for vip in plan.vips),
        )
        if plan.router:
            for family in (4, 6):
                near.ip(_address(ROUTER, family, "eth0"))
                client.ip(f"route add default via {ROUTED_GATEWAY[family]}")
                balancer.ip(f"route add default via {ROUTER[family]}")

    def _build_private(self) -> None:
        plan, balancer = self.plan, self.balancer
        self.switch = self._bridge("switch")
        self._plug(balancer, "eth1", self.switch, "balancer", plan.backend_mtu)
        balancer.ip(f"link set eth1 mtu {plan.private_mtu}")
        if plan.gateways:
            balancer.ip(*(_address(GATEWAY, family, "eth1") for family in (4, 6)))
        for number in range(1, plan.backends + 1):
            backend = self._namespace(f"backend{number}")
            self.backends.append(backend)
            self._plug(backend, "eth0", self.switch, f"backend{number}", plan.backend_mtu)
            for family in (4, 6):
                address = f"{backend_address(family, number)}/{PRIVATE_PREFIX[family]}"
                backend.ip(
                    f"address add {address} dev eth0{_nodad(family)}",
                    f"route add default via {GATEWAY[family]}",
                )

    def _build_direct(self) -> None:
        plan = self.plan
        assert self.front is not None  # noqa: S101 - made with the clients' side
        for number, backend in enumerate(self.backends, 1):
            mtu = plan.public_mtu if plan.router else plan.client_mtu
            self._plug(backend, "eth1", self.front, f"backend{number}", mtu)
            for family in (4, 6):
                address = f"{direct_address(family, number)}/{PUBLIC_PREFIX[family]}"
                backend.ip(f"address add {address} dev eth1{_nodad(family)}")
                if plan.router:
                    backend.ip(f"route replace default via {ROUTER[family]}")

    def _bridge(self, role: str) -> Namespace:
        made = self._namespace(role)
        made.ip("link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
        return made

    def _plug(self, end: Namespace, device: str, switch: Namespace, port: str, mtu: int) -> None:
        join(end, device, switch, port, mtu)
        switch.ip(f"link set {port} master br0")


def join(left: Namespace, left_end: str, right: Namespace, right_end: str, mtu: int) -> None:
    """A veth pair between two namespaces, both ends up, with ``mtu`` bytes."""
    left.ip(
        f"link add {left_end} mtu {mtu} type veth"
        f" peer name {right_end} mtu {mtu} netns {right.name}",
        f"link set {left_end} up",
    )
    right.ip(f"link set {right_end} up")


def _address(table: dict[int, str], family: int, device: str) -> str:
    prefix = (PRIVATE_PREFIX if table is GATEWAY else PUBLIC_PREFIX)[family]
    return f"address add {table[family]}/{prefix} dev {device}{_nodad(family)}"


def _nodad(family: int) -> str:
    return " nodad" if family == 6 else ""
