"""``forward: offload`` when something goes or is changed: daemon, workers, backends, table."""

from __future__ import annotations

import errno
import os
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
from offloading import EVEN, FAMILIES, Held, await_log, seen_by_python, service
from processes import workers
from services import await_connections, url
from waiting import TIMEOUT

from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restart_under_load_breaks_no_connection(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """wrk over lasting connections sees neither an error nor a gap while the daemon is replaced;
    with a new connection per request none fails either.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family)))
    wrk = ["wrk", "-t1", "-c16", "-d60s", "--timeout", "60s"]
    lasting = net.client.popen([*wrk, url(family)], stdout=subprocess.PIPE)
    closing = net.client.popen(
        [*wrk, "-H", "Connection: close", url(family)], stdout=subprocess.PIPE
    )
    await_connections(net, 200)
    assert running.stop() == 0
    await_connections(net, 200)
    running.start()
    await_connections(net, 200)
    for process in (lasting, closing):
        process.send_signal(signal.SIGINT)  # wrk ends, and says what it has counted
        output = process.communicate(timeout=TIMEOUT)[0].decode()
        assert "Socket errors" not in output, output
        assert "Non-2xx" not in output
        assert int(re.search(r"(\d+) requests in", output)[1]) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_worker_the_kernel_decides(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int
) -> None:
    """With all workers killed, new flows reach all backends, old ones continue, and the log says
    so.
    """
    net = topology()
    serve(net)
    echo = service(family, name="echo", protocol="udp", ports=5353)
    running = balancer(net, config(service(family), echo), trouble=True)
    held = Held(net, VIP[family])
    before = held.ask()
    # One that dies young is given time; the fourth time it waits for two seconds.
    for death in range(1, 5):
        for pid in workers(running):
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
    assert 0 < answers["backend1"] < answers["backend2"]  # of weight 1 and 4
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
    await_log(running, "first packets for removed backends went by the kernel's hash")
    assert running.stop() == 0
    running.start()
    assert ask(net, "tcp", VIP[family], 80, 20) == {"backend1": 10, "backend3": 10}
    assert "unchanged" in running.set_up().stdout


@pytest.mark.parametrize("what", ["delete table {0} paraglider", "flush ruleset"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_is_removed(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, what: str
) -> None:
    """After the removal of the table, or of all rules of the host, repeatedly: each time it is
    restored and logged, once.
    """
    net = topology()
    serve(net)
    running = balancer(net, config(service(family)), trouble=True)
    table = f"table {'ip' if family == 4 else 'ip6'} paraglider"
    put_back = f'missing on the host, restored" role="host helper" object="{table}"'
    for time_of in (1, 2):
        net.balancer.run(["nft", what.format("ip" if family == 4 else "ip6")])
        await_log(running, put_back, time_of)
        assert ask(net, "tcp", VIP[family], 80, 30) == EVEN
        said = running.set_up().stdout
        assert "unchanged" in said
        assert "done  " not in said
        assert running.log().count(put_back) == time_of


@pytest.mark.parametrize("io", ["netlink", "netfilterqueue"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_queue_fails_open(
    topology: Any, serve: Any, config: Any, balancer: Any, ask: Any, family: int, io: str
) -> None:
    """With a stopped worker, queued packets are answered later, packets beyond the queue use the
    kernel's hash, and nothing is dropped; also if the worker has flows of nat.
    """
    net = topology()
    serve(net)
    services = [service(family)]
    if io == "netlink":
        services.append({**service(family), "name": "nat", "ports": 8080, "forward": "nat"})
    running = balancer(net, config(*services, queue={"length": 4, "openings": 4, "io": io}))
    (worker,) = workers(running)
    # Of this process: no program starts while the worker is stopped, which is killed after 4 s.
    filling = [opened(net.client, family, socket.SOCK_STREAM) for _ in range(4)]
    os.kill(worker, signal.SIGSTOP)
    try:
        for sock in filling:
            sock.setblocking(False)
            assert sock.connect_ex((VIP[family], 80)) == errno.EINPROGRESS
        assert ask(net, "tcp", VIP[family], 80, 20).total() == 20
    finally:
        os.kill(worker, signal.SIGCONT)
    for sock in filling:
        assert select.select([], [sock], [], TIMEOUT)[1] == [sock]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.close()
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    assert [line.split()[5:7] for line in table.splitlines()] == [["0", "0"]] * 3
    await_log(running, "first packets without a worker's answer went by the kernel's hash")


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_from_before_the_set_up_are_balanced_after_it(
    topology: Any, serve: Any, config: Any, balancer: Any, family: int
) -> None:
    """A client that sent to the VIP before the set-up, and continues from the same port."""
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
        "for seconds in sys.stdin:\n"
        "    sock.settimeout(float(seconds))\n"
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

    def ask_again(seconds: float = TIMEOUT) -> str:
        client.stdin.write(f"{seconds}\n".encode())
        client.stdin.flush()
        return str(client.stdout.readline().decode().strip())

    # An unconnected socket does not hear of the refusal.
    assert ask_again(0.2) == "TimeoutError"
    balancer(net, config(service(family, protocol="udp", ports=5353)))
    assert ask_again() == "backend1"
