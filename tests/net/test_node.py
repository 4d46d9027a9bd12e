"""Health that can be announced: of a VIP and of the balancer, while workers are replaced, while
backends fail, and while the operator has drained the balancer.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import asked, hold
from failing import Load, control
from processes import workers
from services import http_service
from sharing import Shared, vip
from waiting import wait_until

from paraglider.core.pool import DOWN
from paraglider.host.node_file import NodeFile
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root

Command = Callable[..., tuple[int, str]]
EVERY = {"backend1", "backend2", "backend3"}
UNTIL_READY = "not to be announced until `paraglider node ready`\n"


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network of all tests, with nginx in the backends."""
    made: Shared = sharing()
    made.serve(udp=())
    return made


def command(running: LabBalancer) -> Command:
    """A function that runs `paraglider`: its exit code and its standard output."""
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config)]

    def run(*arguments: str) -> tuple[int, str]:
        done = running.namespace.run([*program, *arguments], check=False)
        return done.returncode, done.stdout

    return run


def well(running: LabBalancer) -> None:
    """Wait until nothing is wrong: a busy machine may have conditions of its own for a moment."""
    wait_until(lambda: control(running).get("health")["healthy"], running.log)


@contextmanager
def watching(running: LabBalancer) -> Iterator[list[dict[str, Any]]]:
    """The health of the balancer and of both VIPs, asked for again and again as by a program that
    announces; all the answers.
    """
    answers: list[dict[str, Any]] = []
    over = threading.Event()

    def ask() -> None:
        questions: list[dict[str, Any]] = [{"of": "node"}, {"vip": VIP[4]}, {"vip": VIP[6]}, {}]
        while not over.wait(0.02):
            answers.append(control(running).get("health", **questions[len(answers) % 4]))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def test_a_drain_holds_over_restarts(shared: Shared, ask: Any) -> None:
    """Health, `show` and the metrics tell it, until it is ended; connections go on and new ones are
    served, and the state is that of the next daemon, however the last one ended.
    """
    services = [http_service(family) for family in (4, 6)]
    running = shared.balancer(shared.config(*services), apart=True, trouble=True)
    run = command(running)
    well(running)
    assert run("node", "show") == (0, "ready\n")
    holder = hold(shared.net, 4, 6)
    before = asked(holder)

    def told() -> None:
        for more in ((), ("--node",), ("--vip", VIP[4]), ("--vip", VIP[6], "--when", "all")):
            code, out = run("health", "--exit-code", *more)
            assert (code, out.splitlines()[0]) == (1, "draining"), running.log()
        assert run("show")[1].endswith(UNTIL_READY)
        status = control(running).get("status")
        assert (status["node"]["state"], status["health"]["draining"]) == ("drain", True)
        for family in (4, 6):
            assert set(ask(shared.net, "tcp", VIP[family], 80, 9)) == EVERY
        assert asked(holder) == before

    code, said = run("node", "drain")
    assert (code, said.endswith(UNTIL_READY)) == (0, True)
    since = control(running).get("node")["since"]
    told()
    for how in (signal.SIGTERM, signal.SIGKILL):
        running.stop(how)
        running.start()
        well(running)
        assert control(running).get("node")["since"] == since
        told()
    with running.namespace.entered():
        file = NodeFile()
    assert file.path.exists()
    assert run("node", "ready") == (0, "ready\n")
    assert not file.path.exists()
    wait_until(lambda: run("health", "--exit-code", "--node") == (0, "healthy\n"), running.log)
    holder.communicate()


def test_a_drain_until_the_restart(shared: Shared) -> None:
    """As the unit's stop has it: the next daemon is to be announced."""
    running = shared.balancer(shared.config(http_service(4)), apart=True)
    run = command(running)
    well(running)
    assert run("node", "drain", "--until-restart")[1].endswith("until the daemon's next start\n")
    code, out = run("health", "--node", "--exit-code")
    assert (code, out.splitlines()[0]) == (1, "draining")
    running.stop()
    running.start()
    assert run("node", "show") == (0, "ready\n")
    wait_until(lambda: run("health", "--node", "--exit-code") == (0, "healthy\n"), running.log)


def test_a_drain_waits_for_the_last_packets(shared: Shared, tmp_path: Path) -> None:
    """As long as clients send, at most for the given time; not when they have stopped."""
    running = shared.balancer(shared.config(*(http_service(f) for f in (4, 6))), apart=True)
    run = command(running)
    load = Load(shared.net, 6, tmp_path / "load")
    load.more(5)
    begun = time.monotonic()
    said = run("node", "drain", "--until-restart", "--wait", "4")[1]
    load.stop()
    assert said.endswith("packets may still come after 4 s\n")
    assert time.monotonic() - begun >= 4
    assert set(load.answers()) == EVERY  # none has failed
    said = run("node", "drain", "--until-restart", "--wait", "3600")[1]
    assert said.endswith("no packets come any more\n")


def test_a_replaced_worker_is_no_reason_to_withdraw(shared: Shared) -> None:
    """Neither one that was killed, nor one that hangs, nor those of a rolling restart, of which
    nobody hears; one that keeps dying is a reason.
    """
    services = [http_service(family) for family in (4, 6)]
    text = shared.config(*services, workers=2)
    running = shared.balancer(text, apart=True, trouble=True)
    well(running)
    count = 2

    def replaced(more: int) -> None:
        nonlocal count
        count += more
        wait_until(lambda: running.log().count('event="worker ready"') == count, running.log)

    with watching(running) as answers:
        for how in (signal.SIGKILL, signal.SIGSTOP):
            os.kill(workers(running)[0], how)
            replaced(1)
    assert any("no sign of life" in str(each) for each in answers)  # for two seconds
    assert {each["announce"] for each in answers} == {True}
    assert {each["status"] for each in answers} <= {"healthy", "degraded"}
    well(running)
    with watching(running) as answers:
        other = http_service(4, name="direct", forward="dsr", vip=f"{vip(4, 5)}/24")
        running.config.write_text(shared.config(*services, other, workers=2))
        control(running).reload({})
        replaced(2)
    assert running.log().count('event="worker ended, restarting"') == 2
    assert {each["announce"] for each in answers} == {True}
    assert not [each for each in answers if "does not serve" in str(each)]
    os.kill(workers(running)[0], signal.SIGKILL)  # the third time within a minute
    node = {"of": "node"}
    wait_until(lambda: not control(running).get("health", **node)["announce"], running.log)
    replaced(1)
    found = control(running).get("health", **node)
    assert (found["status"], len(found["problems"])) == ("unhealthy", 1)
    assert "has died 3 times within 60 s" in found["problems"][0]


def test_the_pool_of_another_vip(shared: Shared) -> None:
    """Whose backends are all dead changes nothing for this VIP, nor for the balancer; with one of
    two pools a VIP is well by `--when any`, and not by `--when all`.
    """
    dead = {"type": "tcp", "port": 9, "interval": 0.2, "timeout": 20, "rise": 1, "fall": 1}
    running = shared.balancer(
        shared.config(
            http_service(4),
            http_service(4, name="dead", ports=81, check=dead),
            http_service(6, name="six", check=dead),
        )
    )
    run = command(running)

    def all_down() -> bool:
        rows = [row for row in control(running).get("backends") if row["service"] != "web4"]
        return all(row["state"] in DOWN for row in rows)

    wait_until(all_down, running.log)
    down = "no backend takes new flows; see `paraglider show backends`"
    for more, expected in (
        (("--vip", VIP[4]), (0, f"degraded\nservice dead: {down}\n")),
        (("--vip", VIP[4], "--when", "all"), (1, f"unhealthy\nservice dead: {down}\n")),
        (("--vip", VIP[6]), (1, f"unhealthy\nservice six: {down}\n")),
        (("--node",), (0, "healthy\n")),
        ((), (1, f"unhealthy\nservice dead: {down}\nservice six: {down}\n")),
    ):
        # A busy machine may have conditions of its own for a moment.
        wait_until(
            lambda more=more, expected=expected: run("health", "--exit-code", *more) == expected,
            lambda more=more: (more, run("health", *more), running.log()),
        )
    for number in (1, 2, 3):
        name = "web4", backend_address(4, number)
        control(running).set_backend(*name, state="drain")
    wait_until(lambda: run("health", "--exit-code", "--vip", VIP[4])[0] == 1, running.log)
    assert run("health", "--vip", "192.0.2.77")[0] == 1
