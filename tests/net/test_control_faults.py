"""The control socket while processes hang, die and come back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from carrying import by_workers, mac, wire
from failing import control as daemon
from failing import rows
from forging import segment
from processes import children
from sharing import Shared
from waiting import wait_until

from paraglider.config.memory import flows_for_memory
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

FAMILIES = (4, 6)


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network of all tests, with nginx in the backends."""
    made: Shared = sharing()
    made.serve(udp=())
    return made


@pytest.fixture
def web(shared: Shared, service: Any) -> Callable[..., tuple[Topology, LabBalancer]]:
    """A function that has a service a family balanced by one worker, by a balancer of the test's
    own.
    """

    def start(**changes: Any) -> tuple[Topology, LabBalancer]:
        services = [service(family, ports=80, **changes) for family in FAMILIES]
        # As many flows as there is memory for; those that are closed stay as long as a test.
        text = shared.config(*services, flows={}, timeouts={"closed": 3600})
        return shared.net, shared.balancer(text, apart=True, trouble=True)

    return start


def workers(running: LabBalancer) -> list[dict[str, Any]]:
    """The rows of the workers."""
    return [row for row in daemon(running).get("workers") if row["role"] == "worker"]


def waiting(row: dict[str, Any]) -> int:
    """Packets that wait for a worker in its queues."""
    return sum((row[queue] or {}).get("waiting", 0) for queue in ("queue", "openings"))


@by_workers
def test_the_numbers_of_workers(web: Any, ask: Any) -> None:
    """Counters and gauges; a worker that hangs has its last numbers, their age, and its queue; a
    replaced one continues the counts.
    """
    net, running = web()
    ask(net, "tcp", VIP[4], 80, 30)
    wait_until(lambda: workers(running)[0]["flows"] == 30, running.log)
    (row,) = workers(running)
    assert row["packets"] >= row["batches"] > 0
    assert row["packets"] >= 30 * 6
    assert 0 <= row["busy"] <= 1
    assert row["cpu"] > 0
    assert row["bound"] == flows_for_memory()
    empty = {"waiting": 0, "length": 2048, "overflows": 0, "overruns": 0}
    wait_until(lambda: workers(running)[0]["queue"] == empty, running.log)
    stopped = 0
    ends = (net.client_address(4), 20000, VIP[4], 80)
    # A SYN that no kernel repeats: the worker that comes next has nothing of it.
    syn = segment(mac(net.balancer, "eth0"), ends, "S", 1, 0)

    def hangs() -> bool:
        """Whether the numbers of a stopped worker are old, and something waits for it; one that was
        missed before that was seen has a successor, which is stopped then.
        """
        nonlocal stopped
        (now,) = workers(running)
        if now["flows"] != 30 or not now["pid"]:
            return False
        if now["pid"] != stopped:
            stopped = now["pid"]
            os.kill(stopped, signal.SIGSTOP)
            sock.send(syn)
            return False
        # Which of the two queues it is depends on whether the client is known.
        return (now["age"] or 0) > 1 and waiting(now) > 0

    with wire(net.client) as sock:
        try:
            wait_until(hangs, running.log)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it was missed already
                os.kill(stopped or row["pid"], signal.SIGKILL)
    wait_until(lambda: workers(running)[0]["pid"] not in (None, stopped), running.log)
    wait_until(lambda: workers(running)[0]["flows"] == 30, running.log)
    assert workers(running)[0]["packets"] >= row["packets"]
    ask(net, "tcp", VIP[4], 80, 3)
    wait_until(lambda: daemon(running).get("services")[0]["conns"] == 33, running.log)


def by_role(running: LabBalancer, *roles: str) -> dict[str, dict[str, Any]]:
    """The rows of the processes of ``roles``."""
    return {row["role"]: row for row in daemon(running).get("workers") if row["role"] in roles}


def test_processes_that_hang(web: Any, ask: Any) -> None:
    """Those that carry no flow are missed too: named in the log, killed and replaced, and `health`
    says so meanwhile; flows are served throughout. Whoever asks an http that hangs is answered by
    its successor.
    """
    check = {"type": "tcp", "interval": 1, "timeout": 20, "fall": 1, "rise": 1}
    net, running = web(check=check)
    wait_until(lambda: all(row["check"] for row in rows(running, 4).values()), running.log)
    for roles in (("monitor", "host helper"), ("http",)):
        before = {role: row["pid"] for role, row in by_role(running, *roles).items()}
        assert before.keys() == set(roles)
        for pid in before.values():
            os.kill(pid, signal.SIGSTOP)
        problems: set[str] = set()

        def reported(role: str, problems: set[str] = problems) -> bool:
            problems.update(daemon(running).get("health")["problems"])
            return any(role in problem and "no sign of life" in problem for problem in problems)

        for role in set(roles) - {"http"}:
            wait_until(lambda role=role, reported=reported: reported(role), running.log)
        assert set(ask(net, "tcp", VIP[4], 80, 9)) == {"backend1", "backend2", "backend3"}
        after = by_role(running, *roles)  # of http, from its successor
        assert after.keys() == before.keys()
        for role, pid in before.items():
            said = (
                rf'event="{role}: no sign of life for \d+ s, killed" pid={pid}'
                ' process="is stopped"'
            )
            wait_until(lambda said=said: re.search(said, running.log()), running.log)
            died = rf'event="{role} died" pid={pid} cause=SIGKILL'
            wait_until(lambda died=died: re.search(died, running.log()), running.log)

        def replaced(before: dict[str, int] = before) -> bool:
            after = by_role(running, *before)
            return all(row["up"] and row["pid"] != before[role] for role, row in after.items())

        wait_until(replaced, running.log)
        wait_until(lambda: daemon(running).get("health")["healthy"], running.log)
        if "monitor" in roles:  # its successor checks
            now = datetime.now(UTC).isoformat(timespec="seconds")
            wait_until(
                lambda now=now: all(row["check"]["at"] > now for row in rows(running, 4).values()),
                running.log,
            )


def test_a_worker_that_comes_back_knows(web: Any, ask: Any) -> None:
    """A replaced worker, and a replaced http process, have the states that were set before."""
    net, running = web()
    daemon(running).set_backend("web4", backend_address(4, 1), state="maint")
    (worker,) = workers(running)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: running.log().count('"worker ready"') == 2, running.log)
    assert set(ask(net, "tcp", VIP[4], 80, 10)) == {"backend2", "backend3"}
    os.kill(children(running)["paraglider/http"], signal.SIGKILL)
    wait_until(lambda: running.log().count('"http ready"') == 2, running.log)
    assert rows(running, 4)[backend_address(4, 1)]["state"] == "maint"
