"""Several balancers of one VIP behind a router, for tests of what happens when one goes.

::

    client ── far ── router ─┬─ front ─┬─ eth0 lb1 eth1 ─┬─ switch ─┬─ eth0 backend1
                             │         ├─ eth0 lb2 eth1 ─┤          ├─ eth0 backend2
                             │         └─ …              …          └─ eth0 backend3
                             └─ eth1 of the backends, their default route unless ``gateway`` is

The VIPs are routed: the router has a route to each, over the balancers that are ``active``, by the
hash of a packet's addresses and ports (a namespace's own hash follows the sender's socket, which
gives a flow another path when it is repeated). The link of the far router to the client takes
packets of at most ``mtu`` bytes, of which the client knows nothing.

Lives here: ``Fleet``, the network and its balancers, and ``Lasting``, a client's flows.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from inside import InsideBalancer
from waiting import TIMEOUT, wait_until

from paraglider.lab import namespace
from paraglider.lab.direct import set_up as set_up_backends
from paraglider.lab.direct import undo as undo_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.scenario import neighbouring_cores
from paraglider.lab.topology import new_prefix

VIP = {4: "203.0.113.11", 6: "2001:db8:f::11"}
PORT = 9000
CLIENTS = {
    4: [f"198.51.100.{number}" for number in range(100, 124)],
    6: [f"2001:db8:1::{number}" for number in range(100, 124)],
}
_NETWORK = {4: "198.51.100.0/24", 6: "2001:db8:1::/64"}
_NEAR = {4: "198.51.100.254", 6: "2001:db8:1::254"}  # of the far router, for the client
_FAR = {4: "198.18.0.1", 6: "2001:db8:2::1"}  # of the far router, for the other one
_BETWEEN = {4: "198.18.0.2", 6: "2001:db8:2::2"}  # of the router, for the far one
_ROUTER = {4: "192.168.0.254", 6: "2001:db8::254"}
_WIDTH = {4: 24, 6: 64}
_UNDER_WAY = 0.3  # seconds
_LASTING = Path(__file__).parent / "lasting.py"


def front_address(family: int, number: int) -> str:
    """Of balancer ``number`` (1, 2, …); backends have 51, 52, …"""
    return f"192.168.0.{number}" if family == 4 else f"2001:db8::{number}"


def back_address(family: int, number: int) -> str:
    """Of backend ``number``; balancers have 201, 202, …"""
    return f"10.0.0.{number}" if family == 4 else f"fd00:10::{number}"


class Fleet:
    """``count`` balancers and three backends; a context manager. ``directory`` gets the files."""

    def __init__(
        self, directory: Path, count: int, *, through: bool = False, mtu: int = 1500
    ) -> None:
        self._directory = directory
        self._prefix = new_prefix()
        lbs = [f"lb{number}" for number in range(1, count + 1)]
        backends = [f"backend{number}" for number in (1, 2, 3)]
        roles = ["client", "far", "router", "front", "switch", *lbs, *backends]
        self._made = namespace.create(f"{self._prefix}-{role}" for role in roles)
        by_role = dict(zip(roles, self._made, strict=True))
        self.client, self.router = by_role["client"], by_role["router"]
        self.hosts = [by_role[role] for role in lbs]
        self.backends = [by_role[role] for role in backends]
        self.balancers: list[InsideBalancer] = []
        try:
            self._connect_client(by_role["far"], mtu)
            self._connect(by_role["front"], by_role["switch"])
            self.route(range(1, count + 1))
            self.gateway(1 if through else 0)
        except BaseException:
            self.close()
            raise

    def _connect_client(self, far: Namespace, mtu: int) -> None:
        self._cable(self.client, "eth0", far, "eth1")
        self._cable(far, "eth0", self.router, "eth1")
        far.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for family in (4, 6):
            width = f"/{_WIDTH[family]}{' nodad' if family == 6 else ''}"
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
        self._plug(self.router, "eth0", front, "router")
        self.router.sysctl(
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            *(f"net.{ip}.fib_multipath_hash_policy=3" for ip in ("ipv4", "ipv6")),
            *(f"net.{ip}.fib_multipath_hash_fields=0x37" for ip in ("ipv4", "ipv6")),
        )
        for number, host in enumerate(self.hosts, 1):
            self._plug(host, "eth0", front, f"lb{number}")
            self._plug(host, "eth1", switch, f"lb{number}")
        for number, backend in enumerate(self.backends, 1):
            self._plug(backend, "eth0", switch, f"backend{number}")
            self._plug(backend, "eth1", front, f"backend{number}")
        for family in (4, 6):
            width = f"/{_WIDTH[family]}{' nodad' if family == 6 else ''}"
            self.router.ip(f"address add {_ROUTER[family]}{width} dev eth0")
            for number, host in enumerate(self.hosts, 1):
                host.ip(
                    f"address add {front_address(family, number)}{width} dev eth0",
                    f"address add {back_address(family, 200 + number)}{width} dev eth1",
                    f"route add default via {_ROUTER[family]}",
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

    def _plug(self, one: Namespace, name: str, bridge: Namespace, port: str) -> None:
        self._cable(one, name, bridge, port)
        bridge.ip(f"link set {port} master br0")

    def route(self, active: Iterable[int]) -> None:
        """Have the router send packets to the VIPs to the balancers ``active``."""
        numbers = tuple(active)
        for family in (4, 6):
            hops = (f"nexthop via {front_address(family, number)}" for number in numbers)
            self.router.batch(f"route replace {VIP[family]}/{_bits(family)} {' '.join(hops)}")

    def gateway(self, number: int) -> None:
        """Have the backends answer through balancer ``number``; 0: directly to the router."""
        for family, backend in itertools.product((4, 6), self.backends):
            via = back_address(family, 200 + number) if number else _ROUTER[family]
            backend.batch(f"route replace default via {via}")

    def balance(
        self, workers: int = 1, openings_rate: int = 30_000, **changes: Any
    ) -> list[InsideBalancer]:
        """Start a daemon in each host, with one file but for the gateway. ``changes`` are of both
        services; a value may be a dictionary by family, and None leaves a key out.
        """
        first, last = neighbouring_cores(workers, frozenset(os.sched_getaffinity(0)))
        routed = changes.get("forward") in ("dsr", "tunnel")
        for number, host in enumerate(self.hosts, 1):
            directory = self._directory / f"lb{number}"
            (directory / "empty").mkdir(parents=True)
            gateways = [f"{back_address(f, 200 + number)}/{_WIDTH[f]}" for f in (4, 6)]
            document = {
                "workers": {"first_core": first, "last_core": last},
                "chroot": str(directory / "empty"),
                "flows": {"max": 10_000},
                "queue": {"openings_rate": openings_rate},
                "control": {"socket": str(directory / "control.sock")},
                "network": {
                    "public": {"interface": "eth0" if routed else "lo"},
                    "private": {"interface": "eth1", "gateway": gateways},
                },
                "services": [_service(family, changes) for family in (4, 6)],
            }
            text = yaml.safe_dump(document, sort_keys=False)
            balancer = InsideBalancer(host, directory, text)
            self.balancers.append(balancer)
            balancer.set_up()
            balancer.start()
        if routed or changes.get("return") == "direct":
            config = self.balancers[0].config
            set_up_backends(self.backends, config, [f"web{family}" for family in (4, 6)])
        return self.balancers

    def serve(self, *hosts: Namespace) -> None:
        """Start the server of lasting flows in each backend, or in other ``hosts``, and wait until
        it listens.
        """
        for backend in hosts or self.backends:
            backend.popen([sys.executable, str(_LASTING), "serve", str(PORT)])
        for backend in hosts or self.backends:
            wait_until(lambda one=backend: f":{PORT}" in one.run(["ss", "-ltn"]).stdout)

    def set_state(self, number: int, backend: int, state: str) -> None:
        """Set the state of a backend at balancer ``number``."""
        for family in (4, 6):
            name = f"web{family}/{back_address(family, backend)}"
            self._run(number, "set", "backend", name, "state", state)

    def adopted(self, *numbers: int, least: int = 0) -> int:
        """The flows that the balancers ``numbers`` have adopted, when they have counted ``least``:
        the workers write their counters some times a second.
        """

        def count() -> int:
            shown = (json.loads(self._run(number, "show", "--json")) for number in numbers)
            return sum(row["adopted"] for rows in shown for row in rows)

        wait_until(lambda: count() >= least)
        return count()

    def carried(self, number: int) -> tuple[int, int]:
        """The bytes to the backends, and to the clients, that balancer ``number`` has counted."""
        rows = json.loads(self._run(number, "show", "--json"))
        into, out = (sum(row[f"bytes_{way}"] or 0 for row in rows) for way in ("in", "out"))
        return into, out

    def dropped(self, number: int, reason: str) -> int:
        """The packets that the workers of balancer ``number`` dropped for ``reason``."""
        rows = json.loads(self._run(number, "show", "workers", "--json"))
        return sum(row.get("counts", {}).get(reason, 0) for row in rows)

    def _run(self, number: int, *arguments: str) -> str:
        """The output of a command of balancer ``number``."""
        one = self.balancers[number - 1]
        command = [sys.executable, "-m", "paraglider", "-c", str(one.config), *arguments]
        return one.namespace.run(command).stdout

    def close(self) -> None:
        """Stop and undo everything, and remove the network."""
        for backend in self.backends if self.balancers else ():
            undo_backend(backend, self.balancers[0].config)
        for balancer in self.balancers:
            balancer.stop()
        for balancer in self.balancers:
            balancer.undo()
        self.balancers.clear()
        namespace.close(*self._made)
        namespace.remove_all(self._prefix)


def _bits(family: int) -> int:
    return 32 if family == 4 else 128


def _service(family: int, changes: dict[str, Any]) -> dict[str, Any]:
    """A service of the file; see ``Fleet.balance``."""
    given: dict[str, Any] = {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{_bits(family)}",
        "protocol": "tcp",
        "ports": PORT,
        "strategy": "maglev",
        "seed": 7,
        "backends": [back_address(family, number) for number in (1, 2, 3)],
        **changes,
    }
    for key, value in given.items():
        if isinstance(value, dict) and family in value:
            given[key] = value[family]
    return {key: value for key, value in given.items() if value is not None}


class Lasting:
    """Open flows of the client to the VIPs, or ``to`` other addresses: ``echoes`` and ``downs`` of
    each family, or of each of its addresses if they are ``spread``; of TCP or UDP.
    """

    def __init__(
        self,
        client: Namespace,
        echoes: int,
        downs: int,
        *,
        spread: bool = False,
        protocol: str = "tcp",
        to: Iterable[str] = VIP.values(),
    ) -> None:
        command = [sys.executable, str(_LASTING), protocol, str(PORT), str(echoes), str(downs)]
        ends = [f"{VIP[family]}@{each}" for family in (4, 6) for each in CLIENTS[family]]
        self._process = client.popen(
            [*command, *(ends if spread else to)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def broken(self, patience: float) -> int:
        """How many flows break, or do not go on within ``patience`` seconds from now; returns as
        soon as all have.
        """
        begin = time.monotonic()
        while True:
            time.sleep(0.1)
            waited = time.monotonic() - begin
            found = self._ask()
            # What was under way when the event happened is no progress.
            silent = [each for each in found["silent"] if each > waited - _UNDER_WAY]
            if not silent or waited > patience:
                return len(found["errors"]) + len(silent)

    def end(self) -> None:
        """Close them."""
        self._process.communicate(timeout=TIMEOUT)

    def _ask(self) -> dict[str, Any]:
        """See ``lasting.py``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found
