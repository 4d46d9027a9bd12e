"""``forward: dsr`` over real servers and clients, both families: what arrives, at whom, and how."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from carrying import Carried, both, by_workers
from directing import (
    EVEN,
    FAMILIES,
    Rounds,
    answers_by,
    assert_one_backend_learns,
    assert_shares,
    behind_a_narrow_link,
    directed,
    leases,
    service,
)
from offloading import await_log, seen_by_python
from processes import workers
from services import url
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address, direct_address
from paraglider.netfilter.rules.nft import NFT_FAMILY

pytestmark = pytest.mark.root

BIG = 30_000_000
#: rules of others, after those that mark packets with a lease and before the queue (a removed table
#: of leases would be restored)
UNMARKED = """
add table {0} other
add chain {0} other unmarked {{ type filter hook prerouting priority -152; }}
add rule {0} other unmarked {0} daddr {1} meta mark set 0
"""
PEER = Path(__file__).parent / "peer.py"


def services_of(carrier: str, **changes: Any) -> list[dict[str, Any]]:
    """The service of either family, with this carrier."""
    return [service(family, carrier, **changes) for family in FAMILIES]


@both
@pytest.mark.parametrize("workers", [1, 2])
def test_every_backend_its_share(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, ask: Any, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = directed(topology)
    serve(net)
    echo = [service(f, name=f"echo{f}", protocol="udp", ports=5353) for f in FAMILIES]
    balancer(net, config(*services_of(carrier), *echo, workers=workers))
    assert_shares(net, ask, workers)


@both
def test_any_is_tcp_udp_and_ping(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """``protocol: any`` has all three on one VIP, and ``affinity: client`` keeps them together;
    the backends see the client's own address.
    """
    net = directed(topology)
    serve(net)
    services = services_of(carrier, protocol="any", affinity="client")
    for each in services:
        del each["ports"]
    balancer(net, config(*services, workers=2))
    for family in FAMILIES:
        tcp = ask(net, "tcp", VIP[family], 80, 6)
        assert len(tcp) == 1
        assert set(ask(net, "udp", VIP[family], 5353, 6)) == set(tcp)
        assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
        seen = net.client.run(["curl", "-sS", url(family, "/from")]).stdout.strip()
        assert seen == net.client_address(family)


@pytest.mark.parametrize(
    ("carrier", "leased"),
    [("worker", True), ("worker", False), ("bpf", False)],
    ids=["leased", "asked", "bpf"],
)
def test_long_transfers(
    topology: Any,
    serve_peer: Any,
    config: Any,
    balancer: Any,
    peer: Any,
    carrier: str,
    leased: bool,
) -> None:
    """Thirty megabytes arrive complete in each direction. Downloads bypass the balancer; of uploads
    few packets reach the worker, by BPF or by leases, or all if leases are not supported.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*services_of(carrier)))
    for family in FAMILIES:
        if not leased:
            net.balancer.run(
                ["nft", "-f", "-"], text=UNMARKED.format(NFT_FAMILY[family], VIP[family])
            )
        asked, answered = seen_by_python(net), answers_by(net)
        for direction in ("down", "up"):
            result = peer(net.client, direction, VIP[family], 80, BIG)
            assert result["sent"] == result["arrived"]
        asked = seen_by_python(net) - asked
        few = leased or carrier == "bpf"
        least = BIG // 65_536  # packets, however the kernel merges them
        assert (asked < least) if few else (asked > least), asked
        assert answers_by(net) - answered < 10_000
        if leased:
            assert 1 <= leases(net, family) <= 2
    table = net.balancer.run(["conntrack", "-L", "-p", "tcp"], check=False).stdout
    assert VIP[4] not in table
    if carrier == "bpf":
        carried_by_bpf(running, 2 * BIG)


def carried_by_bpf(running: LabBalancer, least: int) -> None:
    """BPF carried some ``least`` bytes to the backends; of answers there is no number."""
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    rows: list[dict[str, Any]] = []

    def counted() -> bool:
        rows[:] = control.get("services")
        return sum(row["bytes_in"] or 0 for row in rows) > least

    wait_until(counted, running.log)
    answers = {(row["carrier"], row["bytes_out"], row["packets_out"]) for row in rows}
    assert answers == {("bpf", None, None)}
    assert running.carrier()["packets"]["carried"] > 0


def test_a_living_flow_is_not_forgotten(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """BPF carries its packets past the worker, which sees in the entry that it is alive; when its
    client has gone it expires, and nothing is left.
    """
    net = directed(topology)
    serve_peer(net, 80)
    limits = {"established": 2, "closed": 2}
    running = balancer(net, config(*services_of("bpf"), timeouts=limits))
    carried = Carried(running)
    peers = [Rounds(net, family, tmp_path / str(family)) for family in FAMILIES]
    for each in peers:
        each.await_more(running)
    wait_until(lambda: running.carrier()["flows"] == 2, running.log)
    entries = {family: carried.flags(6, family) for family in FAMILIES}
    before = seen_by_python(net)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 10, running.log)  # a lease lasts 1 s
    for each in peers:
        each.await_more(running)
    assert seen_by_python(net) - before < 10
    assert {family: carried.flags(6, family) for family in FAMILIES} == entries
    for each in peers:
        each.end()
    wait_until(lambda: not any(carried.flags(6, family) for family in FAMILIES), running.log)
    assert running.stop() == 0
    assert "expired" not in running.log()


def test_the_carrier_changes(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """Connections go on while BPF is switched off and on, while the file gives their service to the
    workers and back, and while the daemon is away; what ends meanwhile leaves no entry.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*services_of("bpf")), trouble=True)
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    carried = Carried(running)
    peers = [Rounds(net, family, tmp_path / f"{family}{n}") for family in FAMILIES for n in "ab"]

    def all_go_on(flows: int) -> None:
        wait_until(lambda: running.carrier()["flows"] == flows, running.log)
        for each in peers:
            each.await_more(running)

    all_go_on(4)
    for position, flows in (("off", 0), ("on", 4)):
        control.post("carrier", {"state": position})
        all_go_on(flows)
    for carrier, flows in (("worker", 0), ("bpf", 4)):
        running.config.write_text(config(*services_of(carrier)))
        control.post("reload", {})
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
def test_a_flow_is_asked_about_again(
    topology: Any, carrier: str, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """A lease ends in spite of the packets that pass by it, so no living flow is forgotten."""
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*services_of(carrier), timeouts={"established": 4, "closed": 4}))
    peers = [Rounds(net, family, tmp_path / str(family)) for family in FAMILIES]
    before = seen_by_python(net)
    wait_until(lambda: seen_by_python(net) - before > 10, running.log)
    for each in peers:
        each.end()
    assert running.stop() == 0
    assert "expired" not in running.log()


@both
def test_flows_go_on_without_their_worker(
    topology: Any, carrier: str, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """A worker killed with -9 is replaced by one with its flows; after the stop of the daemon
    leases still carry existing flows, and no new ones begin.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*services_of(carrier), workers=2), trouble=True)
    peers = [Rounds(net, family, tmp_path / f"{family}{n}") for family in FAMILIES for n in "abc"]
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
    refused = net.client.run(["curl", "-sS", "-m", "1", url(4)], check=False).stderr
    assert "timed out" in refused
    running.start()
    for each in peers:
        each.end()


@both
def test_flows_end(
    topology: Any, carrier: str, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """Flows that are killed, and those of a lost backend, are reset long before their leases would
    end, by the receiver of the next packet; also if the strategy has only one backend for the
    client, or no backend is left.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(
        net, config(*services_of(carrier, strategy="source", drain_timeout=1), workers=2)
    )
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    for family, gone in ((4, 0), (6, 0), (4, 1), (6, 3)):
        peer = Rounds(net, family, tmp_path / f"{family}-{gone}")
        peer.await_more(running)
        # A flow that BPF carries has one at first: by it nft learns that the client is not forged.
        assert leases(net, family) == 1
        name = f"web{family}"
        wait_until(
            lambda name=name: [n for n, _ in by_flows(control, name)] == [1, 0, 0], running.log
        )
        if not gone:
            assert control.post("flows/kill", {"service": name})["killed"] == 1
        for _, backend in by_flows(control, name)[:gone]:
            control.set_backend(name, backend, state="drain")
        assert peer.await_end(20) == {"error": "ECONNRESET"}
        # What the client sends before another backend's RST reaches it may get a lease there.
        assert leases(net, family) <= (gone == 1)


def by_flows(control: ControlClient, service: str) -> list[tuple[int, str]]:
    """The backends of ``service`` with their live flows, most first."""
    rows = control.get("backends", service=service)
    return sorted(((row["flows"], row["backend"]) for row in rows), reverse=True)


@both
def test_an_error_reaches_the_owner(
    topology: Any, carrier: str, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """The error of a router with a smaller MTU to the VIP reaches the backend that answers."""
    net = behind_a_narrow_link(topology, serve_peer)
    balancer(net, config(*services_of(carrier), workers=2))
    assert_one_backend_learns(net, peer)


@both
def test_long_datagrams(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """Fragments are put together before they are decided about, and arrive."""
    net = directed(topology)
    serve(net)
    balancer(net, config(*services_of(carrier, protocol="udp", ports=5353), workers=2))
    for family in FAMILIES:
        for _ in range(4):
            assert peer(net.client, "udp", VIP[family], 5353, 8000)["whole"]


@both
def test_beside_nat_and_offload(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """One worker reads one queue for all three methods; their VIPs differ."""
    net = directed(topology)
    net.backends[2].ip("link set eth1 down")  # its answers have to pass the balancer
    serve(net, http=(80, 8080, 8081))
    services = []
    for family in FAMILIES:
        other = {4: "192.168.0.12/24", 6: "2001:db8::12/64"}[family]
        services.append(service(family, backends=[backend_address(family, n) for n in (1, 2)]))
        for forward, port in (("nat", 8080), ("offload", 8081)):
            backends = [backend_address(family, 3)]
            changes = {"ports": port, "forward": forward, "vip": other, "backends": backends}
            services.append(service(family, name=f"{forward}{family}", **changes))
    balancer(net, config(*services))
    for family, other in ((4, "192.168.0.12"), (6, "2001:db8::12")):
        assert ask(net, "tcp", VIP[family], 80, 10) == {"backend1": 5, "backend2": 5}
        assert ask(net, "tcp", other, 8080, 4) == {"backend3": 4}
        assert ask(net, "tcp", other, 8081, 4) == {"backend3": 4}


@both
def test_clients_and_backends_on_one_link(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """One interface is public and private: the VIP is answered for there too."""
    net = directed(topology)
    serve(net)
    services = services_of(carrier)
    for family, each in zip(FAMILIES, services, strict=True):
        each["backends"] = [direct_address(family, n) for n in (1, 2, 3)]
    one = {"public": {"interface": "eth0"}, "private": {"interface": "eth0"}}
    balancer(net, config(*services, network=one))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 30) == EVEN


@both
def test_through_a_firewall_that_drops(
    topology: Any, carrier: str, serve: Any, config: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """A policy of DROP on FORWARD accepts balanced packets; a port of the VIP without a service is
    refused at once by the balancer.
    """
    net = directed(topology)
    serve(net)
    for program in ("iptables", "ip6tables"):
        net.balancer.run([program, "-P", "FORWARD", "DROP"])
    balancer(net, config(*services_of(carrier)))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
        assert peer(net.client, "connect", VIP[family], 5353) == {"error": "ECONNREFUSED"}


@both
def test_undo_leaves_nothing(
    topology: Any, carrier: str, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """Rules, tables, routes, policy rules, proxies and sysctls are as before, byte for byte; a
    second run changes nothing; a shell can run the dry run's commands.
    """
    net = directed(topology)
    before = everything(net)
    running = balancer(net, config(*services_of(carrier)), start=False)
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
    texts = [net.balancer.run(command).stdout for command in commands]
    # Counters and lifetimes change by themselves.
    moving = r"valid_lft.*|\[\d+:\d+\]|# .*|expires \d+sec|packets \d+ bytes \d+"
    return re.sub(moving, "", "\n".join(texts))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_refused(topology: Any, config: Any, tmp_path: Path, family: int) -> None:
    """A VIP that is this host's, by the set-up and by the daemon, and a backend that is no
    neighbour: one message each with the remedy, exit 1, and nothing has changed.
    """
    net = directed(topology)
    net.balancer.ip(f"address add {VIP[family]} dev lo")
    before = everything(net)
    local = LabBalancer(net.balancer, tmp_path, config(service(family)))
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
    network = {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}}
    text = config(service(family, backends=[far]), network=network)
    refused = LabBalancer(net.balancer, tmp_path, text).set_up(check=False)
    assert refused.returncode == 1
    assert f"backend {far} of `web{family}` is in no network of eth1" in refused.stderr
    net.balancer.ip(f"address add {VIP[family]} dev lo")
    assert everything(net) == before
