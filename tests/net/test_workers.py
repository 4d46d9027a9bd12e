"""The processes of a running balancer: their privileges, their deaths, their end."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from processes import children, workers
from services import await_connections, connections_begun, http_service
from sharing import Shared
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root

NET_ADMIN = 1 << 12  # capability.h


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines())


def events(balancer: LabBalancer, event: str) -> list[str]:
    """The log's lines about ``event``."""
    return re.findall(rf'^.*event="?{event}"?(?: .*)?$', balancer.log(), re.MULTILINE)


def moment(line: str) -> datetime:
    """The time of a log line."""
    return datetime.fromisoformat(line.split(maxsplit=1)[0].removeprefix("timestamp="))


class World:
    """The network, and its services with one carrier."""

    def __init__(self, shared: Shared, carrier: str) -> None:
        self.shared = shared
        self.net = shared.net
        self.carrier = carrier

    def working(self, *arguments: str, apart: bool = False) -> LabBalancer:
        """A balancer with two workers, which others use too or which is ``apart``; the log of one
        that is may have errors.
        """
        services = [http_service(family, carrier=self.carrier) for family in (4, 6)]
        text = self.shared.config(*services, workers=2)
        return self.shared.balancer(text, *arguments, apart=apart, trouble=apart)


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network with nginx."""
    made: Shared = sharing()
    made.serve(udp=())
    return made


@pytest.fixture(scope="module")
def world(shared: Shared, request: pytest.FixtureRequest) -> World:
    """The network, with services of the carrier that a mark names."""
    return World(shared, request.param)


#: the parameter brings tests together that share a balancer
both = pytest.mark.parametrize("world", ["worker", "bpf"], indirect=True, scope="module")
default = pytest.mark.parametrize("world", ["bpf"], indirect=True, scope="module")


@both
def test_privileges_of_the_workers(world: World) -> None:
    """Each worker runs as nobody without groups, with CAP_NET_ADMIN only, in
    a chroot, on its core.
    """
    running = world.working()
    pids = workers(running)
    assert len(pids) == 2
    nobody = pwd.getpwnam("nobody")
    cores = set()
    for pid in pids:
        found = status(pid)
        assert found["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert found["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert found["Groups"].split() == []
        sets = {name: int(found[name], 16) for name in found if name.startswith("Cap")}
        assert sets == {
            "CapInh": 0,
            "CapPrm": NET_ADMIN,
            "CapEff": NET_ADMIN,
            "CapBnd": 0,
            "CapAmb": 0,
        }
        assert found["NoNewPrivs"] == "1"
        assert Path(f"/proc/{pid}/root").resolve() == running.config.parent.parent / "empty"
        (core,) = os.sched_getaffinity(pid)
        cores.add(core)
        assert found["Name"] == f"paraglider/{core}"
    assert len(cores) == 2


@both
def test_privileges_of_the_parent(world: World) -> None:
    """The parent has no network capability but those that it hands on, and no way to more; with
    BPF that of its host helper.
    """
    running = world.working()
    found = status(running.pid)
    # CAP_KILL 5, CAP_SETGID 6, CAP_SETUID 7, CAP_SETPCAP 8, CAP_NET_ADMIN 12, CAP_NET_RAW 13,
    # CAP_SYS_CHROOT 18
    more = (39,) if world.carrier == "bpf" else ()  # CAP_BPF
    wanted = sum(1 << number for number in (5, 6, 7, 8, 12, 13, 18, *more))
    assert (
        int(found["CapEff"], 16) == int(found["CapPrm"], 16) == int(found["CapBnd"], 16) == wanted
    )
    assert found["NoNewPrivs"] == "1"
    assert found["Groups"].split() == []


@default
def test_a_second_instance(world: World, ask: Any) -> None:
    """It is refused with one line that names the first, which is not affected."""
    running, net = world.working(), world.net
    log, before = running.log(), workers(running)
    second = net.balancer.run(running.daemon_command, check=False)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("paraglider: queue ")
    assert "already has a reader: process " in line
    assert any(f"process {pid} (paraglider/" in line for pid in workers(running))
    logged = running.log().removeprefix(log).splitlines()
    assert [line for line in logged if "level=info" not in line] == []
    assert workers(running) == before
    for family in (4, 6):
        assert ask(net, "tcp", VIP[family], 80, 9).total() == 9


@both
def test_a_worker_killed_under_load(world: World, ask: Any) -> None:
    """SIGKILL during wrk: the worker is replaced, new connections work,
    and the replacement has the same restrictions.
    """
    running, net = world.working(apart=True), world.net
    before = workers(running)
    command = ["wrk", "-t1", "-c16", "-d60s", "--timeout", "1s", f"http://{VIP[4]}/"]
    begun = connections_begun(net)
    load = net.client.popen(command, stdout=subprocess.PIPE)
    await_connections(net, 16, since=begun)
    victim = before[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(events(running, "worker ready")) == 3, running.log)
    (died,) = events(running, "worker died")
    assert f"pid={victim}" in died
    assert "cause=SIGKILL" in died
    after = workers(running)
    assert victim not in after
    assert len(after) == 2
    assert before[1] in after
    (new,) = set(after) - set(before)
    assert int(status(new)["CapPrm"], 16) == NET_ADMIN
    load.send_signal(signal.SIGINT)  # wrk ends, and says what it has counted
    out, _ = load.communicate(timeout=TIMEOUT)
    assert b"requests in" in out
    for family in (4, 6):
        answers = ask(net, "tcp", VIP[family], 80, 30)
        assert answers.total() == 30
        assert set(answers) == {"backend1", "backend2", "backend3"}
    assert [line for line in running.trouble() if '"worker died"' not in line] == []


@both
def test_every_worker_killed_again_and_again(world: World, ask: Any) -> None:
    """Three rounds of killing all workers: they are back each time, and balance."""
    running, net = world.working(apart=True), world.net
    for number in range(1, 4):
        for pid in workers(running):
            os.kill(pid, signal.SIGKILL)
        ready = 2 + 2 * number
        wait_until(lambda n=ready: len(events(running, "worker ready")) == n, running.log)
        for family in (4, 6):
            assert ask(net, "tcp", VIP[family], 80, 6).total() == 6


@default
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_under_load(world: World, number: signal.Signals) -> None:
    """SIGTERM or SIGINT during wrk: all processes exit, exit code 0, queues free."""
    running, net = world.working(apart=True), world.net
    pids = [running.pid, *workers(running)]
    begun = connections_begun(net)
    load = net.client.popen(["wrk", "-t1", "-c16", "-d60s", "--timeout", "1s", f"http://{VIP[4]}/"])
    await_connections(net, 16, since=begun)
    assert running.stop(number) == 0
    assert running.trouble() == []
    assert (
        "exited with an error" not in running.log()
    )  # as one is that takes too long, and is killed
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout == ""
    assert len(events(running, "stopped")) == 2
    assert events(running, "ended")
    load.kill()
    load.wait()


@default
def test_workers_end_with_a_killed_parent(world: World) -> None:
    """SIGKILL of the parent leaves no process, so that the next start finds its queues and its
    socket free.
    """
    running = world.working(apart=True)
    pids = children(running).values()
    assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), running.log)
    running.start()
    assert len(workers(running)) == 2


@default
def test_one_family_alone(world: World, ask: Any, peer: Any) -> None:
    """With ``-6`` the daemon balances IPv6 only: IPv4 passes unchanged to the local stack."""
    world.working("-6", apart=True)
    net = world.net
    assert ask(net, "tcp", VIP[6], 80, 6).total() == 6
    assert peer(net.client, "connect", VIP[4], 80) == {"error": "ECONNREFUSED"}


@default
def test_verbose(world: World, ask: Any) -> None:
    """With ``-D`` every new flow has a line with both ends and the backend."""
    running, net = world.working("-D", apart=True), world.net
    for family in (4, 6):
        ask(net, "tcp", VIP[family], 80, 3)
    wait_until(lambda: len(events(running, "new flow")) == 6, running.log)
    for line in events(running, "new flow"):
        assert re.search(r"client=(192\.168\.0|2001:db8:).*", line)
        assert "port=80" in line
        assert re.search(r"service=\w+ .*why=\"rr, of \d ready\"", line)
        assert re.search(r"backend=(10\.0\.0|fd00:10:)", line)
