"""``forward: dsr`` over real servers and clients, both families: what arrives, at whom, and how."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from directing import EVEN, FAMILIES, answers_by, directed, leases, service
from offloading import await_log, seen_by_python, url
from processes import workers

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address, direct_address
from paraglider.netfilter.rules.nft import NFT_FAMILY

pytestmark = pytest.mark.root

BIG = 30_000_000
#: rules of others, after those that mark what has a lease and before the queue. (A table of leases
#: that is taken away is put back.)
UNMARKED = """
add table {0} other
add chain {0} other unmarked {{ type filter hook prerouting priority -152; }}
add rule {0} other unmarked {0} daddr {1} meta mark set 0
"""
PEER = Path(__file__).parent / "peer.py"


def both(**changes: Any) -> list[dict[str, Any]]:
    """The service of either family."""
    return [service(family, **changes) for family in FAMILIES]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_backend_its_share(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = directed(topology)
    serve(net)
    echo = [service(f, name=f"echo{f}", protocol="udp", ports=5353) for f in FAMILIES]
    balancer(net, config(*both(), *echo, workers=workers))
    for family in FAMILIES:
        for protocol, port in (("tcp", 80), ("udp", 5353)):
            answers = ask(net, protocol, VIP[family], port, 30)
            if workers == 1:
                assert answers == EVEN
            else:
                assert set(answers) == set(EVEN)


def test_any_is_tcp_udp_and_ping(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """``protocol: any`` has all three on one VIP, and ``affinity: client`` keeps them together;
    the backends see the client's own address.
    """
    net = directed(topology)
    serve(net)
    services = both(protocol="any", affinity="client")
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


@pytest.mark.parametrize("leased", [True, False], ids=["leased", "asked"])
def test_long_transfers(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any, leased: bool
) -> None:
    """Thirty megabytes up and down arrive whole. What comes down passes the balancer by; of what
    goes up the worker is asked about a few packets, or, where the marks of leases do not last until
    the queue, about all of them.
    """
    net = directed(topology)
    serve_peer(net, 80)
    balancer(net, config(*both()))
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
        assert (asked < 40) if leased else (asked > BIG // 65_536), asked
        assert answers_by(net) - answered < 10_000
        if leased:
            assert 1 <= leases(net, family) <= 2
    table = net.balancer.run(["conntrack", "-L", "-p", "tcp"], check=False).stdout
    assert VIP[4] not in table


def test_a_flow_is_asked_about_again(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """A lease ends in spite of the packets that pass by it, so no living flow is forgotten."""
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*both(), timeouts={"established": 4, "closed": 4}))
    peers = [Rounds(net, family, tmp_path / str(family)) for family in FAMILIES]
    before = seen_by_python(net)
    wait_until(lambda: seen_by_python(net) - before > 10, running)
    for each in peers:
        each.end()
    assert running.stop() == 0
    assert "expired" not in running.log()


def test_flows_go_on_without_their_worker(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """Killed with -9, each worker is replaced by one that has its flows; stopped for good, leases
    still carry what goes on, and nothing new begins.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*both(), workers=2), trouble=True)
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


def test_flows_end(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, tmp_path: Path
) -> None:
    """Those that are ended by hand, and those of a backend that is lost, are reset long before
    their leases would end, by whoever gets the next packet; also where the strategy has but one
    backend for the client, or no backend is left.
    """
    net = directed(topology)
    serve_peer(net, 80)
    running = balancer(net, config(*both(strategy="source", drain_timeout=1), workers=2))
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    for family, gone in ((4, 0), (6, 0), (4, 1), (6, 3)):
        peer = Rounds(net, family, tmp_path / f"{family}-{gone}")
        peer.await_more(running)
        assert leases(net, family) == 1
        name = f"web{family}"
        wait_until(lambda name=name: [n for n, _ in by_flows(control, name)] == [1, 0, 0], running)
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


def test_an_error_reaches_the_owner(
    topology: Any, serve_peer: Any, config: Any, balancer: Any, peer: Any
) -> None:
    """A router behind which the MTU is smaller tells the VIP, and so the backend that answers."""
    net = directed(topology, router=True)
    assert net.router is not None
    net.router.ip("link set eth1 mtu 1400")
    serve_peer(net, 80)
    for namespace in net.namespaces:
        namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    balancer(net, config(*both(), workers=2))
    for family in FAMILIES:
        result = peer(net.client, "down", VIP[family], 80, 1_000_000)
        assert result["arrived"] == result["sent"]
        to = net.client_address(family)
        learnt = ["mtu 1400" in b.run(["ip", "route", "get", to]).stdout for b in net.backends]
        assert learnt.count(True) == 1


def test_long_datagrams(topology: Any, serve: Any, config: Any, balancer: Any, peer: Any) -> None:
    """Fragments are put together before they are decided about, and arrive."""
    net = directed(topology)
    serve(net)
    balancer(net, config(*both(protocol="udp", ports=5353), workers=2))
    for family in FAMILIES:
        for _ in range(4):
            assert peer(net.client, "udp", VIP[family], 5353, 8000)["whole"]


def test_beside_nat_and_offload(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """One worker reads one queue for all three; the balancer's own VIPs are others."""
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


def test_clients_and_backends_on_one_link(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any
) -> None:
    """One interface is public and private: the VIP is answered for there all the same."""
    net = directed(topology)
    serve(net)
    services = both()
    for family, each in zip(FAMILIES, services, strict=True):
        each["backends"] = [direct_address(family, n) for n in (1, 2, 3)]
    one = {"public": {"interface": "eth0"}, "private": {"interface": "eth0"}}
    balancer(net, config(*services, network=one))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 30) == EVEN


def test_through_a_firewall_that_drops(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, peer: Any
) -> None:
    """A policy of DROP on FORWARD lets pass what is balanced; a port of the VIP that no service has
    is refused at once, by nobody but the balancer.
    """
    net = directed(topology)
    serve(net)
    for program in ("iptables", "ip6tables"):
        net.balancer.run([program, "-P", "FORWARD", "DROP"])
    balancer(net, config(*both()))
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
        assert peer(net.client, "connect", VIP[family], 5353) == {"error": "ECONNREFUSED"}


def test_undo_leaves_nothing(topology: Any, config: Any, balancer: Any, tmp_path: Path) -> None:
    """Rules, tables, routes, policy rules, proxies and sysctls are as they were, byte for byte; a
    second run changes nothing; the dry run's commands are what a shell takes.
    """
    net = directed(topology)
    before = everything(net)
    running = balancer(net, config(*both()), start=False)
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
    """All that the set-up might change on the balancer, as the host's own programs tell it."""
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
    # What counts or ages is nobody's change.
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


def wait_until(condition: Callable[[], object], running: LabBalancer) -> None:
    """Wait for ``condition``; fail with the log when it does not come true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.05)


class Rounds:
    """A connection of the client that moves bytes up and down until it is ended."""

    def __init__(self, net: Topology, family: int, output: Path) -> None:
        self._output = output
        command = [sys.executable, str(PEER), "rounds", VIP[family], "80", "100000"]
        with output.open("wb") as file:
            self._process = net.client.popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
            )

    def await_more(self, running: LabBalancer) -> None:
        """Wait until two more rounds are done: one of them began after now."""
        before = self._done()
        wait_until(lambda: self._process.poll() is not None or self._done() >= before + 2, running)
        assert self._process.poll() is None, self._output.read_text()

    def await_end(self, seconds: float) -> Any:
        """What its end was, ``seconds`` from now at the latest."""
        self._process.wait(seconds)
        return json.loads(self._output.read_text().splitlines()[-1])

    def end(self) -> None:
        """Have it end; all rounds were whole."""
        self._process.communicate(b"\n", timeout=30)
        assert "rounds" in json.loads(self._output.read_text().splitlines()[-1])

    def _done(self) -> int:
        return self._output.read_text().count("\n")
