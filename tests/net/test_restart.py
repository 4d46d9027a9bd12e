"""Restarts without loss under nat: flows keep their backends after any failure of our processes.

A backend answers a segment of an unknown connection by RST, so a connection that continues reaches
its own backend.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from carrying import every_io
from clients import Client, await_rounds
from processes import workers
from waiting import TIMEOUT, wait_until

from paraglider.core.unread import AT_ONCE
from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology
from paraglider.netfilter.queue import QUEUES

pytestmark = pytest.mark.root

SIZE = 300_000


def journals(net: Topology) -> list[str]:
    """The journals of the balancer's namespace."""
    command = "from paraglider.host.ownership import netns_cookie; print(f'{netns_cookie():x}')"
    cookie = net.balancer.run([sys.executable, "-c", command]).stdout.strip()
    return sorted(path.name for path in RUN_DIRECTORY.glob(f"flows-{cookie}-*"))


@every_io
def test_flows_outlive_workers_and_daemons(
    topology: Any, serve: Any, serve_peer: Any, config: Any, service: Any, balancer: Any,
    tmp_path: Path, io: str,
) -> None:  # fmt: skip
    """Transfers, idle connections and datagrams, IPv4 and IPv6, while each worker is killed, and
    the daemon is killed, stopped, started, and started with other cores (with one queue I/O only,
    on which this does not depend) or another seed (with the other): all continue at the same
    backends, without conntrack; the undo removes the journals.
    """
    everything = io == next(iter(QUEUES))
    net = topology()
    serve(net, http=())
    serve_peer(net, 9000)
    services = [
        part
        for family in (4, 6)
        for part in (
            service(family, name=f"tcp{family}", ports=9000),
            service(family, name=f"udp{family}", protocol="udp", ports=5353),
        )
    ]
    common = {"queue": {"io": io}, "timeouts": {"udp": 600}}  # a busy machine takes its time
    running = balancer(net, config(*services, workers=2, **common), trouble=True)
    number = iter(range(100))

    def client(*arguments: object) -> Client:
        return Client(net.client, tmp_path / f"client{next(number)}", *arguments)

    busy = [client("rounds", VIP[family], 9000, SIZE) for family in (4, 6) for _ in range(2)]
    idle = [client("pause", VIP[family], 9000) for family in (4, 6) for _ in range(3)]
    datagrams = [client("still", VIP[family], 5353, 6) for family in (4, 6)]
    await_rounds(busy, running)
    wait_until(lambda: all(each.lines() for each in (*idle, *datagrams)), running.log)

    for count, pid in enumerate(workers(running), 3):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda count=count: said(running, "worker ready") == count, running.log)
        await_rounds(busy, running)
    wait_until(lambda: said(running, "flows restored") == 2, running.log)

    if everything:  # the files are removed while workers use them: they are rewritten
        names = journals(net)
        for name in names:
            (RUN_DIRECTORY / name).unlink()
        wait_until(lambda: journals(net) == names, running.log)
        wait_until(lambda: said(running, "flows restored") == 4, running.log)
        await_rounds(busy, running)
        # They are truncated under load, and rewritten: the next worker restores the flows.
        for number_of, name in enumerate(names, 1):
            os.truncate(RUN_DIRECTORY / name, 4096 * (number_of - 1))
        wait_until(lambda: said(running, "journal damaged, rewritten") == 2, running.log)
        await_rounds(busy, running)
        for count, pid in enumerate(workers(running), 5):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda count=count: said(running, "flows restored") == count, running.log)
        await_rounds(busy, running)
        wait_until(lambda: said(running, "worker died") == 4, running.log)
    taken = said(running, "flows restored")

    ends = (signal.SIGKILL, signal.SIGTERM) if everything else (signal.SIGTERM,)
    for number_of, how in enumerate(ends, 1):
        running.stop(how)
        wait_until(lambda: not net_queues(net), running.log)
        running.start()
        await_rounds(busy, running)
        restored = taken + 2 * number_of
        wait_until(lambda n=restored: said(running, "flows restored") == n, running.log)

    # Each steers flows to other workers than those that had them.
    other = {"workers": 1} if everything else {"workers": 2, "seed": 7}
    running.config.write_text(config(*services, **other, **common))
    running.stop()
    running.set_up()
    running.start()
    await_rounds(busy, running)
    left = 1 if everything else 2
    wait_until(lambda: len(journals(net)) == left, running.log)

    assert [each.end().startswith('{"rounds": ') for each in busy] == [True] * 4
    assert [each.end() for each in idle] == ['{"arrived": 3}'] * 6
    for each in datagrams:
        each.go_on()
        wait_until(lambda each=each: len(each.lines()) == 2, running.log)
        before, after = each.lines()
        assert before == after
        each.end()
    count = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    assert net.balancer.run(["cat", str(count)]).stdout in ("0\n", "")
    running.stop()
    assert len(journals(net)) == left
    running.undo()
    assert journals(net) == []


#: asks the service at the first two arguments from every port from the third to before the fourth
ASK = """
import json, socket, sys
address, port, first, last = sys.argv[1], *map(int, sys.argv[2:])
answers = []
for own in range(first, last):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("", own))
        asking.connect((address, port))
        asking.settimeout(1.0)
        for _ in range(30):
            asking.send(b"who")
            try:
                answers.append(asking.recv(100).decode())
                break
            except TimeoutError:
                pass
print(json.dumps(answers))
"""


def test_many_flows_outlive_a_worker(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> None:
    """More than are restored before the first packet: each datagram finds its backend, whether its
    flow was restored yet or not, also after a worker that ended before it had restored all.
    """
    net = topology()
    serve(net, http=())
    lasting = service(4, name="udp", protocol="udp", ports=5353)
    text = config(lasting, timeouts={"udp": 600})
    running = balancer(net, text, trouble=True)
    first = 20_000
    last = first + AT_ONCE + 500

    def answers() -> list[str]:
        ask = [sys.executable, "-c", ASK, VIP[4], "5353", str(first), str(last)]
        return list(json.loads(net.client.run(ask, timeout=5 * TIMEOUT).stdout))

    before = answers()
    assert len(before) == last - first
    assert len(set(before)) > 1
    for count in (2, 3):
        (pid,) = workers(running)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda count=count: said(running, "worker ready") == count, running.log)
    assert answers() == before
    wait_until(lambda: said(running, "flows restored") >= 1, running.log)
    assert answers() == before


def test_a_daemon_starts_beside_the_workers_of_a_killed_one(
    topology: Any, config: Any, service: Any, balancer: Any
) -> None:
    """On a busy machine they end later than it: the next daemon waits for their queues."""
    running = balancer(topology(), config(service(4, ports=80)), trouble=True)
    (worker,) = workers(running)
    os.kill(worker, signal.SIGSTOP)
    running.stop(signal.SIGKILL)
    ending = threading.Timer(2, os.kill, (worker, signal.SIGCONT))
    ending.start()
    running.start()
    ending.join()


def said(running: LabBalancer, event: str) -> int:
    """How many lines of the log have ``event``."""
    return running.log().count(f'event="{event}"')


def net_queues(net: Topology) -> str:
    """The queues that have a reader."""
    return net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
