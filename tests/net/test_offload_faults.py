"""``forward: offload`` when something goes or is changed: daemon, workers, backends, table.

The tests share a network; each has a balancer of its own, with a service of either family.
"""

from __future__ import annotations

import errno
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from carrying import opened
from evenly import EVEN, assert_even
from offloading import (
    FAMILIES,
    Held,
    await_log,
    await_reading,
    queued,
    seen_by_python,
    service,
    stopped,
)
from processes import workers
from services import await_connections, connections_begun, url
from sharing import Shared
from waiting import TIMEOUT, runs, wait_until

from paraglider.lab.topology import PUBLIC_PREFIX, VIP, backend_address

pytestmark = pytest.mark.root

TABLES = {4: "table ip paraglider", 6: "table ip6 paraglider"}
UNANSWERED = "first packets without a worker's answer went by the kernel's hash"


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with its servers."""
    made: Shared = sharing()
    made.serve()
    return made


def test_a_restart_under_load_breaks_no_connection(shared: Shared) -> None:
    """wrk over lasting connections sees neither an error nor a gap while the daemon is replaced;
    with a new connection per request none fails either.
    """
    net = shared.net
    running = shared.balancer(shared.config(*map(service, FAMILIES)), apart=True)
    wrk = ["wrk", "-t1", "-c16", "-d100s", "--timeout", "60s"]
    closing = [*wrk, "-H", "Connection: close"]
    begun = connections_begun(net)
    loads = [
        net.client.popen([*command, url(family)], stdout=subprocess.PIPE)
        for family in FAMILIES
        for command in (wrk, closing)
    ]
    await_connections(net, 200, since=begun)
    assert running.stop() == 0
    await_connections(net, 200)
    running.start()
    await_connections(net, 200)
    for process in loads:
        process.send_signal(signal.SIGINT)  # wrk ends, and says what it has counted
        output = process.communicate(timeout=TIMEOUT)[0].decode()
        assert "Socket errors" not in output, output
        assert "Non-2xx" not in output
        assert int(re.findall(r"(\d+) requests in", output)[0]) > 0


def test_without_a_worker_the_kernel_decides(shared: Shared, ask: Any) -> None:
    """With all workers killed, new flows reach all backends, old ones continue, and the log says
    so.
    """
    net = shared.net
    echo = [service(f, name=f"echo{f}", protocol="udp", ports=5353) for f in FAMILIES]
    text = shared.config(*map(service, FAMILIES), *echo)
    running = shared.balancer(text, apart=True, trouble=True)
    held = {family: Held(net, VIP[family]) for family in FAMILIES}
    before = {family: one.ask() for family, one in held.items()}
    await_reading(running)
    (worker,) = workers(running)
    with stopped(running.pid):  # so that none takes its place
        subprocess.run(["kill", "-KILL", str(worker)], check=True)
        wait_until(lambda: not runs(worker), running.log)
        for family in FAMILIES:
            assert set(ask(net, "tcp", VIP[family], 80, 60)) == set(EVEN)
            assert set(ask(net, "udp", VIP[family], 5353, 30)) <= set(EVEN)
            assert held[family].ask() == before[family]
        assert seen_by_python(net) == 0
    await_log(running, "no worker alive: new flows of offload services go by kernel hash")
    await_log(running, 'event="worker ready"', 2)
    for family in FAMILIES:
        await_log(running, rf"{UNANSWERED}.*family={family}\b")
        with queued(net, 3):
            assert ask(net, "tcp", VIP[family], 80, 3).total() == 3
        held[family].end()


def test_no_daemon_at_all(shared: Shared, ask: Any) -> None:
    """Set up and never started: everything is balanced by the kernel's hash, by weight."""
    services = []
    for family in FAMILIES:
        heavy = {"address": backend_address(family, 2), "weight": 4}
        backends = [backend_address(family, 1), heavy]
        services.append(service(family, protocol="any", backends=backends))
        del services[-1]["ports"]
    shared.balancer(shared.config(*services), apart=True, start=False)
    for family in FAMILIES:
        answers = ask(shared.net, "tcp", VIP[family], 80, 100)
        assert 0 < answers["backend1"] < answers["backend2"]  # of weight 1 and 4
        assert answers["backend1"] + answers["backend2"] == 100
        assert ask(shared.net, "udp", VIP[family], 5353, 10).total() == 10
        assert ask(shared.net, "ping", VIP[family], 0, 3) == {"": 3}


def test_a_backend_leaves(shared: Shared, ask: Any) -> None:
    """The file changes, the set-up runs: its elements go, its connections end at once, the others
    do not notice; also before the daemon is restarted.
    """
    net = shared.net
    text = shared.config(*map(service, FAMILIES))
    running = shared.balancer(text, apart=True)
    held = {family: [Held(net, VIP[family]) for _ in range(3)] for family in FAMILIES}
    for each in held.values():
        one_each = {"backend1": 1, "backend2": 1, "backend3": 1}
        assert Counter(one.ask() for one in each) == one_each
    await_reading(running)
    for family in FAMILIES:
        text = text.replace(f"  - {backend_address(family, 2)}\n", "")
    running.config.write_text(text)
    said = running.set_up().stdout
    assert said.count("2 backends, 1 gone in place of another") == 2
    for family, each in held.items():
        again = [one.ask() for one in each]
        assert again.count("backend1") == again.count("backend3") == 1
        ends = {"ConnectionResetError", "RemoteDisconnected"}
        assert set(again) - {"backend1", "backend3"} <= ends
        # The daemon still decides for the one that left; the kernel then decides otherwise.
        assert set(ask(net, "tcp", VIP[family], 80, 20)) == {"backend1", "backend3"}
        gone = "first packets for removed backends went by the kernel's hash"
        await_log(running, rf"{gone}.*family={family}\b")
        for one in each:
            one.end()
    assert running.stop() == 0
    running.start()
    for family in FAMILIES:
        assert ask(net, "tcp", VIP[family], 80, 20) == {"backend1": 10, "backend3": 10}
    assert "unchanged" in running.set_up().stdout


@pytest.mark.parametrize(
    "removals",
    [
        [(f"delete {TABLES[4]}; delete {TABLES[6]}", FAMILIES)] * 2,
        [("flush ruleset", FAMILIES), ("flush ruleset ip6", [6])],
    ],
    ids=["tables", "all rules"],
)
def test_the_table_is_removed(
    shared: Shared, ask: Any, removals: list[tuple[str, list[int]]]
) -> None:
    """After the removal of the table, or of all rules of the host, repeatedly: each time it is
    restored and logged, once.
    """
    text = shared.config(*map(service, FAMILIES))
    # The log has ten such lines a minute at most, and one for each table and for the rules.
    running = shared.balancer(text, apart=True, trouble=True)
    restored = dict.fromkeys(FAMILIES, 0)
    for what, families in removals:
        shared.net.balancer.run(["nft", what])
        for family in families:
            restored[family] += 1
            await_log(running, restored_line(family), restored[family])
        for family in FAMILIES:
            assert_even(ask, shared.net, "tcp", VIP[family], 80)
        said = running.set_up().stdout
        assert "unchanged" in said
        assert "done  " not in said
        logged = {family: running.log().count(restored_line(family)) for family in FAMILIES}
        assert logged == restored


def restored_line(family: int) -> str:
    """What the log has of a restored table."""
    return f'missing on the host, restored" role="host helper" object="{TABLES[family]}"'


@pytest.mark.parametrize("io", ["netlink", "netfilterqueue"])
def test_a_full_queue_fails_open(shared: Shared, ask: Any, io: str) -> None:
    """With a stopped worker, queued packets are answered later, packets beyond the queue use the
    kernel's hash, and nothing is dropped; also if the worker has flows of nat.
    """
    net = shared.net
    services = [service(family) for family in FAMILIES]
    if io == "netlink":
        services += [service(f, name=f"nat{f}", ports=8080, forward="nat") for f in FAMILIES]
    text = shared.config(*services, queue={"length": 4, "openings": 4, "io": io})
    running = shared.balancer(text, apart=True)
    (worker,) = workers(running)
    await_reading(running)
    for family in FAMILIES:
        filling = [opened(net.client, family, socket.SOCK_STREAM) for _ in range(4)]
        # The supervisor too, which would kill a worker that hangs.
        with stopped(running.pid), stopped(worker):
            for sock in filling:
                sock.setblocking(False)
                assert sock.connect_ex((VIP[family], 80)) == errno.EINPROGRESS
            assert ask(net, "tcp", VIP[family], 80, 20).total() == 20
        for sock in filling:
            assert select.select([], [sock], [], TIMEOUT)[1] == [sock]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            sock.close()
        table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
        assert [line.split()[5:7] for line in table.splitlines()] == [["0", "0"]] * 3
        await_log(running, rf"{UNANSWERED}.*family={family}\b")


def test_datagrams_from_before_the_set_up_are_balanced_after_it(
    topology: Any, serve: Any, config: Any, balancer: Any
) -> None:
    """A client that sent to the VIP before the set-up, and continues from the same port."""
    net = topology(vips=[f"{VIP[family]}/{PUBLIC_PREFIX[family]}" for family in FAMILIES])
    serve(net, http=())
    for tables in ("iptables", "ip6tables"):
        rule = ["-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"]
        net.balancer.run([tables, *rule])
    clients = {
        family: net.client.popen(
            [sys.executable, "-c", DATAGRAMS, VIP[family]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for family in FAMILIES
    }

    def asked(family: int, seconds: float = TIMEOUT) -> str:
        client = clients[family]
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(f"{seconds}\n".encode())
        client.stdin.flush()
        return str(client.stdout.readline().decode().strip())

    # An unconnected socket does not hear of the refusal.
    assert [asked(family, 0.2) for family in FAMILIES] == ["TimeoutError"] * 2
    services = [service(family, protocol="udp", ports=5353) for family in FAMILIES]
    balancer(net, config(*services))
    assert [asked(family) for family in FAMILIES] == ["backend1"] * 2


DATAGRAMS = """\
import socket, sys
address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
for seconds in sys.stdin:
    sock.settimeout(float(seconds))
    sock.sendto(b"who", (address, 5353))
    try:
        print(sock.recv(100).decode().split()[0], flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
