"""Restart without loss under nat: whatever happens to our processes, flows keep their backends.

A backend answers a segment of a connection that it does not have by RST, so a connection that
goes on goes to its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import Client
from processes import workers

from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology
from paraglider.netfilter.queue import QUEUES

pytestmark = pytest.mark.root

PATIENCE = 30.0  # seconds until something that must happen counts as not happening
SIZE = 300_000


def wait_until(condition: Callable[[], object], running: LabBalancer) -> None:
    """Wait for ``condition``; fail with the log when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.02)


def await_rounds(clients: list[Client], running: LabBalancer, more: int = 2) -> None:
    """Wait until every client has made some rounds more, one of them wholly from now on."""
    for client, before in [(client, len(client.lines())) for client in clients]:
        wait_until(
            lambda client=client, before=before: (
                len(client.lines()) >= before + more or client.process.poll() is not None
            ),
            running,
        )
        assert client.process.poll() is None, client.output.read_text() + running.log()


def journals(net: Topology) -> list[str]:
    """The journals of the balancer's namespace."""
    command = "from paraglider.host.ownership import netns_cookie; print(f'{netns_cookie():x}')"
    cookie = net.balancer.run([sys.executable, "-c", command]).stdout.strip()
    return sorted(path.name for path in RUN_DIRECTORY.glob(f"flows-{cookie}-*"))


@pytest.mark.parametrize("io", list(QUEUES))
def test_flows_outlive_workers_and_daemons(
    topology: Any, serve: Any, serve_peer: Any, config: Any, service: Any, balancer: Any,
    tmp_path: Path, io: str,
) -> None:  # fmt: skip
    """Transfers, idle connections and datagrams, IPv4 and IPv6, while each worker is killed, the
    daemon is killed, stopped and started, and starts with other cores (with one queue I/O only,
    which it does not depend on): all go on, at the same backends; conntrack knows none of them;
    undoing removes what was written down.
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
    running = balancer(net, config(*services, workers=2, queue={"io": io}), trouble=True)
    number = iter(range(100))

    def client(*arguments: object) -> Client:
        return Client(net.client, tmp_path / f"client{next(number)}", *arguments)

    busy = [client("rounds", VIP[family], 9000, SIZE) for family in (4, 6) for _ in range(2)]
    idle = [client("pause", VIP[family], 9000) for family in (4, 6) for _ in range(3)]
    datagrams = [client("still", VIP[family], 5353, 6) for family in (4, 6)]
    await_rounds(busy, running)
    wait_until(lambda: all(each.lines() for each in (*idle, *datagrams)), running)

    for count, pid in enumerate(workers(running), 3):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda count=count: said(running, "worker ready") == count, running)
        await_rounds(busy, running)
    assert said(running, "flows restored") == 2

    if everything:  # the files are removed under the workers' hands: they are written anew
        names = journals(net)
        for name in names:
            (RUN_DIRECTORY / name).unlink()
        wait_until(lambda: journals(net) == names, running)
        wait_until(lambda: said(running, "flows restored") == 4, running)
        await_rounds(busy, running)
        # They are cut under load: written anew, as the next worker finds.
        for number_of, name in enumerate(names, 1):
            os.truncate(RUN_DIRECTORY / name, 4096 * (number_of - 1))
        wait_until(lambda: said(running, "journal damaged, rewritten") == 2, running)
        await_rounds(busy, running)
        for count, pid in enumerate(workers(running), 5):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda count=count: said(running, "flows restored") == count, running)
        await_rounds(busy, running)
        assert said(running, "worker died") == 4
    taken = said(running, "flows restored")

    ends = (signal.SIGKILL, signal.SIGTERM) if everything else (signal.SIGTERM,)
    for number_of, how in enumerate(ends, 1):
        running.stop(how)
        wait_until(lambda: not net_queues(net), running)
        running.start()
        await_rounds(busy, running)
        assert said(running, "flows restored") == taken + 2 * number_of

    if everything:
        running.config.write_text(config(*services, workers=1, queue={"io": io}))
        running.stop()
        running.set_up()
        running.start()
        await_rounds(busy, running)
    assert len(journals(net)) == (1 if everything else 2)

    assert [each.end().startswith('{"rounds": ') for each in busy] == [True] * 4
    assert [each.end() for each in idle] == ['{"arrived": 3}'] * 6
    for each in datagrams:
        each.go_on()
        wait_until(lambda each=each: len(each.lines()) == 2, running)
        before, after = each.lines()
        assert before == after
        each.end()
    count = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    assert net.balancer.run(["cat", str(count)]).stdout in ("0\n", "")
    running.stop()
    assert len(journals(net)) == (1 if everything else 2)
    running.undo()
    assert journals(net) == []


def said(running: LabBalancer, event: str) -> int:
    """How often the log tells of ``event``."""
    return running.log().count(f'event="{event}"')


def net_queues(net: Topology) -> str:
    """The queues that have a reader."""
    return net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
