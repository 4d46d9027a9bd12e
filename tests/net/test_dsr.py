"""``forward: dsr`` over real servers and clients, both families: what arrives, at whom, and how.

The tests share a network, and most of them a balancer: each has services on a VIP of its own.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, both
from directing import (
    FAMILIES,
    Rounds,
    answers_by,
    assert_one_backend_learns,
    assert_shares,
    behind_a_narrow_link,
    directed,
    hold_vips,
    leases,
    service,
)
from evenly import assert_even
from inside import InsideBalancer
from offloading import await_log, seen_by_python
from processes import workers
from sharing import Shared, vip
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import (
    GATEWAY,
    PUBLIC_PREFIX,
    VIP,
    Topology,
    backend_address,
    direct_address,
)
from paraglider.netfilter.rules.nft import NFT_FAMILY

pytestmark = pytest.mark.root

BIG = 10_000_000
TRANSFERS = 9000
SMALL = 20_000  # bytes of a round
#: timeouts of flows, in seconds; a lease lasts 2, and on a busy machine a client may be as silent
SHORT = {"established": 4, "closed": 2}
#: the VIPs by their numbers
BULK, ANY, ONE_BACKEND, BESIDE, OTHER = 2, 3, 4, 5, 6
#: rules of others, after those that mark packets with a lease and before the queue (a removed table
#: of leases would be restored)
UNMARKED = """
add table {0} other
add chain {0} other unmarked {{ type filter hook prerouting priority -152; }}
add rule {0} other unmarked {0} daddr {1} meta mark set 0
"""


class World:
    """The network, and its services with one carrier."""

    def __init__(self, shared: Shared, carrier: str) -> None:
        self.shared = shared
        self.net = shared.net
        self.carrier = carrier

    def service(self, family: int, name: str, number: int = 1, **changes: Any) -> dict[str, Any]:
        """A service on a VIP."""
        made = service(family, self.carrier, name=f"{name}{family}", **changes)
        return made | {"vip": f"{vip(family, number)}/{PUBLIC_PREFIX[family]}"}

    def working(self, *, workers: int = 1) -> LabBalancer:
        """The balancer that most tests use, with one worker or two."""
        services = []
        for family in FAMILIES:
            services += [
                self.service(family, "web", ports=[80, TRANSFERS]),
                self.service(family, "echo", protocol="udp", ports=5353),
            ]
            services += self._apart(family) if workers == 2 else self._beside(family)
        return self.shared.balancer(self.shared.config(*services, workers=workers))

    def _apart(self, family: int) -> list[dict[str, Any]]:
        everything = self.service(family, "any", ANY, protocol="any", affinity="client")
        del everything["ports"]
        chosen = {"strategy": "source", "drain_timeout": 1, "ports": TRANSFERS}
        return [everything, self.service(family, "one", ONE_BACKEND, **chosen)]

    def _beside(self, family: int) -> list[dict[str, Any]]:
        one, two, three = (backend_address(family, n) for n in (1, 2, 3))
        found = [
            self.service(family, "bulk", BULK, ports=TRANSFERS),
            self.service(family, "two", BESIDE, backends=[one, two]),
        ]
        for forward, port in (("nat", 8080), ("offload", 8081)):
            changes = {"ports": port, "forward": forward, "backends": [three]}
            made = self.service(family, forward, OTHER, **changes)
            del made["carrier"]
            found.append(made)
        return found

    def apart(self, *, workers: int = 1, **top: Any) -> LabBalancer:
        """A balancer for one test, whose log may have errors."""
        services = [self.service(family, "web", ports=TRANSFERS) for family in FAMILIES]
        text = self.shared.config(*services, workers=workers, **top)
        return self.shared.balancer(text, apart=True, trouble=True)

    def rounds(self, directory: Path, each: str = "a") -> list[Rounds]:
        """Connections of both families that go on."""
        return [
            Rounds(self.net, family, directory / f"{family}{n}", port=TRANSFERS, size=SMALL)
            for family in FAMILIES
            for n in each
        ]


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing(direct=True)
    hold_vips(made.net, BESIDE)
    made.serve(http=(80, 8080, 8081))
    made.serve_peer(TRANSFERS)
    return made


@pytest.fixture(scope="module")
def world(shared: Shared, request: pytest.FixtureRequest) -> World:
    """The network, with services of the carrier that a mark names."""
    return World(shared, request.param)


#: the parameter brings tests together that share a balancer
either = pytest.mark.parametrize("world", ["worker", "bpf"], indirect=True, scope="module")
by_bpf = pytest.mark.parametrize("world", ["bpf"], indirect=True, scope="module")
by_workers = pytest.mark.parametrize("world", ["worker"], indirect=True, scope="module")


def control(running: LabBalancer) -> ControlClient:
    """The control socket of a balancer."""
    return ControlClient(str(running.config.parent.parent / "control.sock"))


@either
def test_every_backend_its_share(world: World, ask: Any) -> None:
    """rr over TCP and UDP: ten of thirty each."""
    world.working()
    assert_shares(world.net, ask, 1)


@pytest.mark.parametrize(
    ("world", "leased"),
    [("worker", True), ("worker", False), ("bpf", False)],
    ids=["leased", "asked", "bpf"],
    indirect=["world"],
    scope="module",
)
def test_long_transfers(world: World, peer: Any, leased: bool) -> None:
    """Ten megabytes arrive complete in each direction. Downloads bypass the balancer; of uploads
    few packets reach the worker, by BPF or by leases, or all if leases are not supported.
    """
    running, net = world.working(), world.net
    few = leased or world.carrier == "bpf"
    carried = bytes_in(running)
    for family in FAMILIES:
        address = vip(family, BULK)
        with unmarked(net, family, address, leased):
            asked, answered = seen_by_python(net), answers_by(net)
            for direction in ("down", "up"):
                result = peer(net.client, direction, address, TRANSFERS, BIG)
                assert result["sent"] == result["arrived"]
            asked = seen_by_python(net) - asked
        least = BIG // 65_536  # packets, however the kernel merges them
        assert (asked < least) if few else (asked > least), asked
        assert answers_by(net) - answered < 10_000
        if leased:
            assert 1 <= leases(net, family, address) <= 2
    table = net.balancer.run(["conntrack", "-L", "-p", "tcp"], check=False).stdout
    assert vip(4, BULK) not in table
    if world.carrier == "bpf":
        wait_until(lambda: bytes_in(running) - carried > 2 * BIG, running.log)
        rows = [row for row in control(running).get("services") if row["forward"] == "dsr"]
        # Of answers there is no number.
        answers = {(row["carrier"], row["bytes_out"], row["packets_out"]) for row in rows}
        assert answers == {("bpf", None, None)}
        assert running.carrier()["packets"]["carried"] > 0


@contextmanager
def unmarked(net: Topology, family: int, address: str, leased: bool) -> Iterator[None]:
    """Meanwhile no packet to ``address`` has a lease, unless they are ``leased``."""
    if leased:
        yield
        return
    place = NFT_FAMILY[family]
    net.balancer.run(["nft", "-f", "-"], text=UNMARKED.format(place, address))
    try:
        yield
    finally:
        net.balancer.run(["nft", "delete", "table", place, "other"])


def bytes_in(running: LabBalancer) -> int:
    """Bytes that BPF has carried to the backends of the bulk services."""
    rows = control(running).get("services")
    return sum(row["bytes_in"] or 0 for row in rows if row["service"].startswith("bulk"))


@either
def test_beside_nat_and_offload(world: World, ask: Any) -> None:
    """One worker reads one queue for all three methods; their VIPs differ."""
    world.working()
    net, third = world.net, world.net.backends[2]
    client = {family: net.client_address(family) for family in FAMILIES}
    # The answers of nat and offload have to pass the balancer.
    third.ip(*(f"route add {client[family]} via {GATEWAY[family]}" for family in FAMILIES))
    try:
        for family in FAMILIES:
            two = {"backend1": 5, "backend2": 5}
            assert ask(net, "tcp", vip(family, BESIDE), 80, 10) == two
            for port in (8080, 8081):
                assert ask(net, "tcp", vip(family, OTHER), port, 4) == {"backend3": 4}
    finally:
        third.ip(*(f"route del {client[family]} via {GATEWAY[family]}" for family in FAMILIES))


@either
def test_through_a_firewall_that_drops(world: World, ask: Any, peer: Any) -> None:
    """A policy of DROP on FORWARD accepts balanced packets; a port of the VIP without a service is
    refused at once by the balancer.
    """
    world.working()
    net = world.net
    policies(net, "DROP")
    try:
        for family in FAMILIES:
            assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
            assert peer(net.client, "connect", VIP[family], 5353) == {"error": "ECONNREFUSED"}
    finally:
        policies(net, "ACCEPT")


def policies(net: Topology, target: str) -> None:
    """Set the policy of FORWARD."""
    for program in ("iptables", "ip6tables"):
        net.balancer.run([program, "-P", "FORWARD", target])


@either
def test_two_workers_share_the_work(world: World, ask: Any) -> None:
    """Over two workers each backend has some of the flows of TCP and UDP."""
    world.working(workers=2)
    assert_shares(world.net, ask, 2)


@either
def test_any_is_tcp_udp_and_ping(world: World, ask: Any) -> None:
    """``protocol: any`` has all three on one VIP, and ``affinity: client`` keeps them together;
    the backends see the client's own address.
    """
    world.working(workers=2)
    net = world.net
    for family in FAMILIES:
        address = vip(family, ANY)
        tcp = ask(net, "tcp", address, 80, 6)
        assert len(tcp) == 1
        assert set(ask(net, "udp", address, 5353, 6)) == set(tcp)
        assert ask(net, "ping", address, 0, 6) == {"": 6}
        host = f"[{address}]" if family == 6 else address
        seen = net.client.run(["curl", "-sS", f"http://{host}/from"]).stdout.strip()
        assert seen == net.client_address(family)


@either
def test_long_datagrams(world: World, peer: Any) -> None:
    """Fragments are put together before they are decided about, and arrive."""
    world.working(workers=2)
    for family in FAMILIES:
        for _ in range(4):
            assert peer(world.net.client, "udp", VIP[family], 5353, 8000)["whole"]


@either
def test_flows_end(world: World, tmp_path: Path) -> None:
    """Flows that are killed, and those of a lost backend, are reset before their leases would end,
    by the receiver of the next packet; also if the strategy has only one backend for the client, or
    no backend is left.
    """
    running, net = world.working(workers=2), world.net
    asked = control(running)
    for family, gone in ((4, 0), (6, 0), (4, 1), (6, 3)):
        address, name = vip(family, ONE_BACKEND), f"one{family}"
        peer = Rounds(net, family, tmp_path / f"{family}-{gone}", address, TRANSFERS, SMALL)
        peer.await_more(running)
        # A flow that BPF carries has one at first: by it nft learns that the client is not forged.
        assert leases(net, family, address) == 1
        wait_until(
            lambda name=name: [n for n, _ in by_flows(asked, name)] == [1, 0, 0], running.log
        )
        if not gone:
            assert asked.post("flows/kill", {"service": name})["killed"] == 1
        for _, backend in by_flows(asked, name)[:gone]:
            asked.set_backend(name, backend, state="drain")
        assert peer.await_end(28) == {"error": "ECONNRESET"}  # a lease lasts for 30 s
        # What the client sends before another backend's RST reaches it may get a lease there.
        assert leases(net, family, address) <= (gone == 1)


def by_flows(control: ControlClient, service: str) -> list[tuple[int, str]]:
    """The backends of ``service`` with their live flows, most first."""
    rows = control.get("backends", service=service)
    return sorted(((row["flows"], row["backend"]) for row in rows), reverse=True)


@by_bpf
def test_a_living_flow_is_not_forgotten(world: World, tmp_path: Path) -> None:
    """BPF carries its packets past the worker, which sees in the entry that it is alive; when its
    client has gone it expires, and nothing is left.
    """
    running, net = world.apart(timeouts=SHORT), world.net
    carried = Carried(running)
    peers = world.rounds(tmp_path)
    for each in peers:
        each.await_more(running)
    wait_until(lambda: running.carrier()["flows"] == 2, running.log)
    entries = {family: carried.flags(6, family) for family in FAMILIES}
    before = seen_by_python(net)
    started = time.monotonic()  # a flow lasts a lease longer than its timeout
    wait_until(lambda: time.monotonic() - started > 7, running.log)
    for each in peers:
        each.await_more(running)
    assert seen_by_python(net) - before < 10
    assert {family: carried.flags(6, family) for family in FAMILIES} == entries
    for each in peers:
        each.end()
    wait_until(lambda: not any(carried.flags(6, family) for family in FAMILIES), running.log)
    assert running.stop() == 0
    assert "expired" not in running.log()
    assert not running.trouble()


@by_bpf
def test_the_carrier_changes(world: World, tmp_path: Path) -> None:
    """Connections go on while BPF is switched off and on, while the file gives their service to the
    workers and back, and while the daemon is away; what ends meanwhile leaves no entry.
    """
    running = world.apart()
    asked = control(running)
    carried = Carried(running)
    peers = world.rounds(tmp_path, "ab")

    def all_go_on(flows: int) -> None:
        wait_until(lambda: running.carrier()["flows"] == flows, running.log)
        for each in peers:
            each.await_more(running)

    all_go_on(4)
    for position, flows in (("off", 0), ("on", 4)):
        asked.post("carrier", {"state": position})
        all_go_on(flows)
    by_bpf = running.config.read_text()
    for text, flows in ((by_bpf.replace("carrier: bpf", "carrier: worker"), 0), (by_bpf, 4)):
        running.config.write_text(text)
        asked.post("reload", {})
        all_go_on(flows)
    running.stop(signal.SIGKILL)
    for each in peers:
        each.await_more(running)
    peers.pop().end()
    running.start()
    all_go_on(3)
    for each in peers:
        each.end()
    wait_until(lambda: running.carrier()["flows"] == 0, running.log)
    assert not any(carried.flags(6, family) for family in FAMILIES)


@by_workers
def test_a_flow_is_asked_about_again(world: World, tmp_path: Path) -> None:
    """A lease ends in spite of the packets that pass by it, so no living flow is forgotten."""
    running = world.apart(timeouts=SHORT)
    peers = world.rounds(tmp_path)
    for each in peers:
        each.await_more(running)
    before = seen_by_python(world.net)
    wait_until(lambda: seen_by_python(world.net) - before > 6, running.log)  # in 8 s
    for each in peers:
        each.end()
    assert running.stop() == 0
    assert "expired" not in running.log()
    assert not running.trouble()


@either
def test_flows_go_on_without_their_worker(world: World, tmp_path: Path) -> None:
    """A worker killed with -9 is replaced by one with its flows; after the stop of the daemon
    leases still carry existing flows, and no new ones begin.
    """
    running = world.apart(workers=2)
    peers = world.rounds(tmp_path, "abc")
    for each in peers:
        each.await_more(running)
    for pid in workers(running):
        os.kill(pid, signal.SIGKILL)
    await_log(running, 'event="worker ready"', 4)
    for each in peers:
        each.await_more(running)
    assert running.stop() == 0
    for each in peers:
        each.await_more(running)
    address = f"http://{VIP[4]}:{TRANSFERS}/"
    refused = world.net.client.run(["curl", "-sS", "-m", "1", address], check=False).stderr
    assert "timed out" in refused
    running.start()
    for each in peers:
        each.end()


@either
def test_clients_and_backends_on_one_link(world: World, ask: Any) -> None:
    """One interface is public and private: the VIP is answered for there too."""
    services = [
        world.service(f, "web", backends=[direct_address(f, n) for n in (1, 2, 3)])
        for f in FAMILIES
    ]
    one = {"public": {"interface": "eth0"}, "private": {"interface": "eth0"}}
    world.shared.balancer(world.shared.config(*services, network=one))
    for family in FAMILIES:
        assert_even(ask, world.net, "tcp", VIP[family], 80)


@both
def test_an_error_reaches_the_owner(
    topology: Any, carrier: str, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """The error of a router with a smaller MTU to the VIP reaches the backend that answers."""
    net = behind_a_narrow_link(topology, serve_peer)
    balancer(net, config(*(service(family, carrier) for family in FAMILIES), workers=2))
    assert_one_backend_learns(net, peer)


@both
def test_undo_leaves_nothing(topology: Any, carrier: str, config: Any, balancer: Any) -> None:
    """Rules, tables, routes, policy rules, proxies and sysctls are as before, byte for byte; a
    second run changes nothing; a shell can run the dry run's commands.
    """
    net = directed(topology, backends=1)
    before = everything(net)
    running = balancer(net, config(*(service(f, carrier) for f in FAMILIES)), start=False)
    done = everything(net)
    assert done != before
    again = running.set_up().stdout.splitlines()
    assert "done" not in {line.split()[0] for line in again}
    running.undo()
    assert everything(net) == before
    running.set_up()
    net.balancer.run(["sh", "-e"], text=running.set_up("--undo", "--dry-run").stdout)
    assert everything(net) == before
    running.undo()
    assert everything(net) == before
    net.balancer.run(["sh", "-e"], text=running.set_up("--dry-run").stdout)
    assert everything(net) == done


def everything(net: Topology) -> str:
    """Everything that the set-up might change on the balancer, as the host's
    own programs print it.
    """
    commands = (
        ["iptables-save"],
        ["ip6tables-save"],
        ["nft", "list", "ruleset"],
        ["ip", "address"],
        *(
            ["ip", f"-{f}", *words]
            for f in FAMILIES
            for words in (
                ["rule"],
                ["route", "show", "table", "all"],
                ["neighbour", "show", "proxy"],
            )
        ),
        ["sysctl", "-a", "-r", "net.ipv[46].(conf|neigh|ip_forward)"],
    )
    net.balancer.await_routed()
    texts = [net.balancer.run(command).stdout for command in commands]
    # Counters and lifetimes change by themselves.
    moving = r"valid_lft.*|\[\d+:\d+\]|# .*|expires \d+sec|packets \d+ bytes \d+"
    return re.sub(moving, "", "\n".join(texts))


def test_what_is_refused(topology: Any, config: Any, tmp_path: Path) -> None:
    """A VIP that is this host's, by the set-up and by the daemon, and a backend that is no
    neighbour: one message each with the remedy, exit 1, and nothing has changed.
    """
    net = directed(topology, backends=1)
    network = {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}}
    for family in FAMILIES:
        net.balancer.ip(f"address add {VIP[family]} dev lo")
        before = everything(net)
        local = InsideBalancer(net.balancer, tmp_path, config(service(family)))
        refused = local.set_up(check=False)
        assert refused.returncode == 1
        words = f"the VIP {VIP[family]} of `web{family}` is an address of this host"
        assert f"{words} (lo)" in refused.stderr
        daemon = [sys.executable, "-m", "paraglider", "-c", str(local.config)]
        refused = net.balancer.run(daemon, check=False)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"paraglider: {words};")
        net.balancer.ip(f"address del {VIP[family]} dev lo")
        far = {4: "172.16.0.1", 6: "fd00:99::1"}[family]
        local.config.write_text(config(service(family, backends=[far]), network=network))
        refused = local.set_up(check=False)
        assert refused.returncode == 1
        assert f"backend {far} of `web{family}` is in no network of eth1" in refused.stderr
        net.balancer.ip(f"address add {VIP[family]} dev lo")
        assert everything(net) == before
        net.balancer.ip(f"address del {VIP[family]} dev lo")
        local.release_pins()
