"""``forward: offload`` over real servers and clients, both families: what arrives, and at whom."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paraglider.lab.balancer import Balancer
from paraglider.lab.topology import BALANCER, CLIENT, GATEWAY, VIP, Topology, backend_address

pytestmark = pytest.mark.root

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, offloaded."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "forward": "offload",
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def url(family: int, path: str = "/", port: int = 80) -> str:
    """A URL on the VIP."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def seen_by_python(net: Topology) -> int:
    """Packets that the kernel has queued so far, all queues together."""
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return sum(int(line.split()[7]) for line in table.splitlines())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_backend_its_share(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, workers: int
) -> None:
    """rr over TCP and UDP: ten of thirty each; over two workers each backend has some."""
    net = topology()
    serve(net)
    echo = service(family, name="echo", protocol="udp", ports=5353)
    balancer(net, config(service(family), echo, workers=workers))
    for protocol, port in (("tcp", 80), ("udp", 5353)):
        answers = ask(net, protocol, VIP[family], port, 30)
        if workers == 1:
            assert answers == EVEN
        else:
            assert set(answers) == set(EVEN)


@pytest.mark.parametrize("family", FAMILIES)
def test_python_sees_first_packets_alone(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """Eight megabytes and a hundred requests over one connection cost one packet in the queue."""
    net = topology()
    serve(net)
    balancer(net, config(service(family)))
    before = seen_by_python(net)
    urls = [url(family, "/big"), *[url(family)] * 100]
    done = net.client.run(["curl", "-sS", "-o", "/dev/null", *urls, "-w", "%{num_connects}\n"])
    assert done.stderr == ""
    assert seen_by_python(net) - before == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_are_mapped(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """The backends answer on a port of their own, and the client hears from the VIP's."""
    net = topology()
    serve(net, http=(80, 8080))
    backends = [
        {"address": backend_address(family, 1), "port": 8080},
        {"address": backend_address(family, 2), "port": 8080, "weight": 2},
    ]
    balancer(net, config(service(family, ports=81, strategy="wrr", backends=backends)))
    assert ask(net, "tcp", VIP[family], 81, 30) == {"backend1": 10, "backend2": 20}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_range_keeps_the_port(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """A service with several ports sends each to the same one; one with all ports has the rest."""
    net = topology()
    serve(net, http=(80, 8000, 8080))
    some = service(family, ports=["8000-8010"], backends=[backend_address(family, 1)])
    rest = service(family, name="rest", backends=[backend_address(family, 2)])
    del rest["ports"]
    balancer(net, config(some, rest))
    assert ask(net, "tcp", VIP[family], 8000, 5) == {"backend1": 5}
    assert ask(net, "tcp", VIP[family], 8080, 5) == {"backend2": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_backends_see_the_client_or_the_balancer(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """Without ``snat`` the client's own address arrives, with it the one it names."""
    net = topology()
    serve(net)
    masked = service(family, name="masked", ports=8080, snat=GATEWAY[family])
    masked["backends"] = [{"address": address, "port": 80} for address in masked["backends"]]
    balancer(net, config(service(family), masked))
    for port, address in ((80, CLIENT[family]), (8080, GATEWAY[family])):
        answer = net.client.run(["curl", "-sS", url(family, "/from", port)]).stdout
        assert answer.strip() == address


@pytest.mark.parametrize("family", FAMILIES)
def test_hairpin(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """A backend, which may get itself, and a client in the backends' own network call the VIP."""
    net = topology()
    serve(net)
    neighbour = net.backends[2]
    balancer(net, config(service(family, backends=[backend_address(family, n) for n in (1, 2)])))
    for caller in (net.backends[0], neighbour):
        command = [sys.executable, "-m", "paraglider.lab.client", "tcp", VIP[family], "80", "10"]
        lines = caller.run(command, timeout=60).stdout.splitlines()
        answers = Counter(json.loads(line).get("answer") for line in lines)
        assert answers == {"backend1": 5, "backend2": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_is_tcp_udp_and_ping(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """``protocol: any`` has all three, and nobody but the backends answers the ping."""
    net = topology()
    serve(net)
    everything = service(family, protocol="any")
    del everything["ports"]
    balancer(net, config(everything))
    assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
    assert ask(net, "udp", VIP[family], 5353, 3).total() == 3
    before = seen_by_python(net)
    assert ask(net, "ping", VIP[family], 0, 6) == {"": 6}
    assert seen_by_python(net) - before == 6


def children(balancer: Balancer) -> dict[str, int]:
    """The daemon's processes by what the log calls them: name → process id."""
    listing = Path(f"/proc/{balancer.pid}/task/{balancer.pid}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in listing}


def await_log(balancer: Balancer, words: str, count: int = 1) -> None:
    """Wait until the log has ``words`` ``count`` times."""
    deadline = time.monotonic() + 20
    while len(re.findall(words, balancer.log())) < count:
        assert time.monotonic() < deadline, balancer.log()
        time.sleep(0.05)


class Held:
    """A connection of the client that stays open and asks again and again."""

    SCRIPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
for _ in sys.stdin:
    try:
        connection.request("GET", "/")
        print(connection.getresponse().read().decode().strip(), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
        connection.close()
"""

    def __init__(self, net: Topology, address: str, port: int = 80) -> None:
        self._process = net.client.popen(
            [sys.executable, "-c", self.SCRIPT, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self) -> str:
        """The answer to one more request, or what went wrong; then the next opens anew."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()

    def end(self) -> None:
        """Close the connection."""
        self._process.communicate(timeout=10)


@pytest.mark.parametrize("family", FAMILIES)
def test_weighted_counts_live_flows(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """Connections that stay open count, those that the kernel has forgotten do not."""
    net = topology()
    serve(net)
    net.balancer.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait=1")
    backends = [backend_address(family, 1), {"address": backend_address(family, 2), "weight": 3}]
    text = config(service(family, strategy="weighted", backends=backends))
    running = balancer(net, text, trouble=True)
    assert "paraglider/live" in children(running)
    held = [Held(net, VIP[family]) for _ in range(12)]
    assert Counter(one.ask() for one in held) == {"backend1": 3, "backend2": 9}
    # The three of the first backend end; the next three fill its place.
    for one in [one for one in held if one.ask() == "backend1"]:
        held.remove(one)
        one.end()
    await_forgotten(net, 9)
    more = [Held(net, VIP[family]) for _ in range(4)]
    assert Counter(one.ask() for one in more) == {"backend1": 3, "backend2": 1}
    # A tracker that dies is replaced and counts what there is.
    os.kill(children(running)["paraglider/live"], signal.SIGKILL)
    await_log(running, 'event="tracker ready"', 2)
    time.sleep(0.3)
    even_more = [Held(net, VIP[family]) for _ in range(4)]
    assert Counter(one.ask() for one in even_more) == {"backend1": 1, "backend2": 3}
    assert "no worker alive" not in running.log()


def await_forgotten(net: Topology, left: int) -> None:
    """Wait until conntrack has ``left`` connections of ours, and the workers know."""
    deadline = time.monotonic() + 20
    script = "from paraglider.system.connections import dump; print(len(list(dump())))"
    while int(net.balancer.run([sys.executable, "-c", script]).stdout) > left:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restart_under_load_breaks_no_connection(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """wrk over lasting connections sees neither an error nor a gap while the daemon is replaced,
    and one that connects anew for every request none either.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family)))
    wrk = ["wrk", "-t1", "-c16", "-d4s", "--timeout", "4s"]
    lasting = net.client.popen([*wrk, url(family)], stdout=subprocess.PIPE)
    closing = net.client.popen(
        [*wrk, "-H", "Connection: close", url(family)], stdout=subprocess.PIPE
    )
    time.sleep(1)
    assert running.stop() == 0
    time.sleep(0.5)
    running.start()
    for process in (lasting, closing):
        output = process.communicate(timeout=30)[0].decode()
        assert "Socket errors" not in output, output
        assert "Non-2xx" not in output
        assert int(re.search(r"(\d+) requests in", output)[1]) > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_worker_the_kernel_decides(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """All workers killed: new flows reach all backends, old ones go on, and the log says so."""
    net = topology()
    serve(net)
    echo = service(family, name="echo", protocol="udp", ports=5353)
    running = balancer(net, config(service(family), echo), trouble=True)
    held = Held(net, VIP[family])
    before = held.ask()
    # One that dies young is given time; the fourth time it waits for two seconds.
    for death in range(1, 5):
        workers = [pid for name, pid in children(running).items() if name != "paraglider/live"]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        await_log(running, 'event="worker died"', death)
        if death < 4:
            await_log(running, 'event="worker ready"', death + 1)
    seen = seen_by_python(net)
    answers = ask(net, "tcp", VIP[family], 80, 60)
    assert set(answers) == set(EVEN)
    assert set(ask(net, "udp", VIP[family], 5353, 30)) <= set(EVEN)
    assert held.ask() == before
    assert seen_by_python(net) == seen == 0
    await_log(running, "no worker alive: new flows of offload services go by kernel hash")
    await_log(running, 'event="worker ready"', 5)
    await_log(running, "first packets without a worker's answer went by the kernel's hash")
    assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
    assert seen_by_python(net) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_no_daemon_at_all(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """Set up and never started: everything is balanced by the kernel's hash, by weight."""
    net = topology()
    serve(net)
    backends = [backend_address(family, 1), {"address": backend_address(family, 2), "weight": 4}]
    everything = service(family, protocol="any", backends=backends)
    del everything["ports"]
    balancer(net, config(everything), start=False)
    answers = ask(net, "tcp", VIP[family], 80, 100)
    assert 5 <= answers["backend1"] <= 40
    assert answers["backend1"] + answers["backend2"] == 100
    assert ask(net, "udp", VIP[family], 5353, 10).total() == 10
    assert ask(net, "ping", VIP[family], 0, 3) == {"": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_leaves(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """The file changes, the set-up runs: its elements go, its connections end at once, the others
    do not notice; also before the daemon is restarted.
    """
    net = topology()
    serve(net)
    text = config(service(family))
    running = balancer(net, text)
    held = [Held(net, VIP[family]) for _ in range(3)]
    assert Counter(one.ask() for one in held) == {"backend1": 1, "backend2": 1, "backend3": 1}
    gone = backend_address(family, 2)
    running.config.write_text(text.replace(f"  - {gone}\n", ""))
    said = running.set_up().stdout
    assert "2 backends, 1 gone in place of another" in said
    again = [one.ask() for one in held]
    assert again.count("backend1") == again.count("backend3") == 1
    assert set(again) - {"backend1", "backend3"} <= {"ConnectionResetError", "RemoteDisconnected"}
    # The daemon still decides for the one that left; the kernel then decides otherwise.
    assert set(ask(net, "tcp", VIP[family], 80, 20)) == {"backend1", "backend3"}
    await_log(running, "first packets for backends that had left went by the kernel's hash")
    assert running.stop() == 0
    running.start()
    assert ask(net, "tcp", VIP[family], 80, 20) == {"backend1": 10, "backend3": 10}
    assert "unchanged" in running.set_up().stdout


@pytest.mark.parametrize("what", ["delete table {0} paraglider", "flush ruleset"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_is_removed(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, what: str
) -> None:
    """Somebody removes it, or all rules of the host: it is put back, once, and logged, once."""
    net = topology()
    serve(net)
    running = balancer(net, config(service(family)), trouble=True)
    assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
    net.balancer.run(["nft", what.format("ip" if family == 4 else "ip6")])
    await_log(running, "the table was gone, put back")
    assert ask(net, "tcp", VIP[family], 80, 30) == EVEN
    time.sleep(5)
    assert running.log().count("put back") == 1
    assert "unchanged" in running.set_up().stdout
    assert "done  " not in running.set_up().stdout


FILL = """
import selectors, socket, sys
family, address, count = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, *sys.argv[1:]
waiting = selectors.DefaultSelector()
for _ in range(int(count)):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.connect_ex((address, 80))
    waiting.register(sock, selectors.EVENT_WRITE)
print("sent", flush=True)
done = 0
while done < int(count):
    for key, _ in waiting.select():
        assert key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        waiting.unregister(key.fileobj)
        done += 1
print("connected", flush=True)
"""


@pytest.mark.parametrize("io", ["netlink", "netfilterqueue"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_queue_fails_open(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, io: str
) -> None:
    """A worker that does not read: what waits gets its answer later, what finds no room goes by
    the kernel's hash, and nothing is dropped.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family), queue={"length": 4, "io": io}))
    (worker,) = children(running).values()
    os.kill(worker, signal.SIGSTOP)
    try:
        command = [sys.executable, "-c", FILL, VIP[family], "4"]
        filling = net.client.popen(command, stdout=subprocess.PIPE)
        assert filling.stdout is not None
        assert filling.stdout.readline() == b"sent\n"
        assert ask(net, "tcp", VIP[family], 80, 20).total() == 20
    finally:
        os.kill(worker, signal.SIGCONT)
    assert filling.stdout.readline() == b"connected\n"
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    assert table.split()[5:7] == ["0", "0"]
    await_log(running, "first packets without a worker's answer went by the kernel's hash")


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_from_before_the_set_up_are_balanced_after_it(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """A client that asked while the VIP was nobody's, and goes on from the same port."""
    prefix = 24 if family == 4 else 64
    net = topology(vips=(f"{VIP[family]}/{prefix}",))
    serve(net)
    tables = "iptables" if family == 4 else "ip6tables"
    net.balancer.run([tables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"])
    script = (
        "import socket, sys\n"
        "address = sys.argv[1]\n"
        "family = socket.AF_INET6 if ':' in address else socket.AF_INET\n"
        "sock = socket.socket(family, socket.SOCK_DGRAM)\n"
        "sock.settimeout(5)\n"
        "for _ in sys.stdin:\n"
        "    sock.sendto(b'who', (address, 5353))\n"
        "    try:\n"
        "        print(sock.recv(100).decode().split()[0], flush=True)\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__, flush=True)\n"
    )
    client = net.client.popen(
        [sys.executable, "-c", script, VIP[family]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin is not None
    assert client.stdout is not None

    def ask_again() -> str:
        client.stdin.write(b"\n")
        client.stdin.flush()
        return str(client.stdout.readline().decode().strip())

    # An unconnected socket does not hear of the refusal.
    assert ask_again() == "TimeoutError"
    balancer(net, config(service(family, protocol="udp", ports=5353)))
    assert ask_again() == "backend1"


@pytest.mark.parametrize("family", FAMILIES)
def test_beside_nat_on_one_vip(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """One service is offloaded, the other rewritten, by the same worker, from other ports."""
    net = topology()
    serve(net, http=(80, 8080))
    rewritten = service(family, name="nat", ports=8080, forward="nat")
    names = service(family, name="names", protocol="udp", ports=5353)
    balancer(net, config(service(family), rewritten, names))
    assert ask(net, "tcp", VIP[family], 80, 30) == EVEN
    assert ask(net, "tcp", VIP[family], 8080, 30) == EVEN
    assert ask(net, "udp", VIP[family], 5353, 30) == EVEN
    before = seen_by_python(net)
    assert net.client.run(["curl", "-sS", "-o", "/dev/null", url(family, "/big")]).stderr == ""
    assert seen_by_python(net) - before == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_through_a_firewall_that_drops(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """A policy of DROP on FORWARD stays in force for all but what is balanced, both ways."""
    net = topology()
    serve(net)
    net.balancer.run(["iptables" if family == 4 else "ip6tables", "-P", "FORWARD", "DROP"])
    balancer(net, config(service(family)))
    assert ask(net, "tcp", VIP[family], 80, 6).total() == 6
    direct = [sys.executable, "-m", "paraglider.lab.client", "tcp", backend_address(family, 1)]
    gateway = net.client.run(
        ["ip", "route", "add", backend_address(family, 1), "via", BALANCER[family]]
    )
    assert gateway.returncode == 0
    assert "timed out" in net.client.run([*direct, "80", "1"]).stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_keeps_its_backend(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """With ``affinity: client`` over two workers all of a client's flows meet at one backend, also
    while no daemon runs.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family, affinity="client"), workers=2))
    assert len(ask(net, "tcp", VIP[family], 80, 20)) == 1
    assert running.stop() == 0
    assert len(ask(net, "tcp", VIP[family], 80, 20)) == 1


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_path_mtu_is_found(
    topology: Any,
    serve_peer: Any,
    config: Any,
    balancer: Any,
    peer: Any,
    family: int,
    beside: bool,
) -> None:
    """A router on the client's way has a smaller MTU: its errors to the VIP reach the backend,
    also where the VIP is a nat service's too, whose flows conntrack does not know.
    """
    net = topology(router=True)
    assert net.router is not None
    net.router.ip("link set eth1 mtu 1400")
    serve_peer(net, 9000)
    for namespace in net.namespaces:
        namespace.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    services = [service(family, ports=9000)]
    if beside:
        backends = [{"address": backend_address(family, 1), "port": 9000}]
        services[0]["backends"] = [backend_address(family, number) for number in (2, 3)]
        services.append(service(family, name="nat", ports=9001, forward="nat", backends=backends))
    balancer(net, config(*services, workers=2))
    for port in (9000, 9001) if beside else (9000,):
        result = peer(net.client, "down", VIP[family], port, 1_000_000)
        assert result["arrived"] == result["sent"]
    learnt = [
        "mtu 1400" in backend.run(["ip", "route", "get", net.client_address(family)]).stdout
        for backend in net.backends
    ]
    assert learnt.count(True) == (2 if beside else 1)
