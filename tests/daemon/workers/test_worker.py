"""A worker alone: its report, its privileges, its counters.

Each runs as a process in a namespace whose packets to 127.0.0.2 go to its queue; its report pipe is
that process's standard output.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from waiting import TIMEOUT, wait_until

from paraglider.config.model import Config
from paraglider.core.flow import TCP, UDP
from paraglider.core.policy_guard import PolicyGuard
from paraglider.core.pool import Backend
from paraglider.core.strategies import STRATEGIES, Context, NewFlow
from paraglider.core.strategies.rr import RoundRobin
from paraglider.core.verdict import REASONS
from paraglider.daemon.processes.spec import StartupState
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.daemon.workers.worker import WorkerCounts, WorkerSpec, _warm_up
from paraglider.forward.worker_datapath import build
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix
from paraglider.netfilter.queue import QueueReader

pytestmark = pytest.mark.root

CORE = min(os.sched_getaffinity(0))
NOBODY = pwd.getpwnam("nobody")

SCRIPT = """
import json, os, sys
from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.workers import worker
debug, core, config = json.loads(sys.argv[1])
log.set_up(debug)
{extra}
spec = worker.WorkerSpec(0, core, Config.model_validate(config), {uid}, {gid})
sys.exit(worker.run(spec, 1, os.getppid()))
"""

SEND = """
import socket, sys
for port in map(int, sys.argv[1:]):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret words", ("127.0.0.2", port))
"""

# The reader as it is, but that what handles its packets raises.
BROKEN = """
from paraglider.netfilter.queue import worker_queues
class Reader(worker_queues.QueueReader):
    def serve(self, handle, tick):
        super().serve(broken, tick)
def broken(*packet):
    raise ValueError("a fault of ours")
worker_queues.QueueReader = Reader
"""


class Worker:
    """A worker process: its report, its log."""

    def __init__(self, namespace: Namespace, script: str, argument: str, log: Path) -> None:
        self.namespace = namespace
        self._log = log
        with log.open("wb") as errors:
            self.process = namespace.popen(
                [sys.executable, "-c", script, argument], stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        self.report = self.process.stdout.read().decode()

    def log(self) -> str:
        """All its log lines."""
        return self._log.read_text()

    def status(self) -> dict[str, str]:
        """/proc/PID/status."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines())

    def send(self, *ports: int) -> None:
        """A UDP datagram to each port of 127.0.0.2."""
        self.namespace.run([sys.executable, "-c", SEND, *map(str, ports)])

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)

    def await_log(self, words: str) -> str:
        """The first line of the log with ``words``."""
        found = wait_until(lambda: re.search(f"^.*{words}.*$", self.log(), re.MULTILINE), self.log)
        assert found is not None
        return found[0]


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    """A namespace whose packets to 127.0.0.2 go to the queue of ``CORE``."""
    with Namespace(f"{new_prefix()}-worker") as made:
        rule = f"-A OUTPUT -d 127.0.0.2 -j NFQUEUE --queue-num {CORE}"
        made.run(["iptables-restore"], text=f"*mangle\n{rule}\nCOMMIT\n")
        yield made


@pytest.fixture
def work(namespace: Namespace, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker and waits for its report."""
    made: list[Worker] = []
    chroot = tmp_path / "empty"
    chroot.mkdir()

    def start(
        *,
        core: int = CORE,
        debug: bool = False,
        extra: str = "",
        uid: int = NOBODY.pw_uid,
        **top: Any,
    ) -> Worker:
        service = {
            "name": "dns",
            "vip": "127.0.0.2/8",
            "protocol": "udp",
            "ports": [53, 5353],
            "backends": ["127.0.0.3"],
        }
        config = {"chroot": str(chroot), "services": [service], **top}
        script = SCRIPT.format(extra=extra, uid=uid, gid=NOBODY.pw_gid)
        log = tmp_path / f"log{len(made)}"
        made.append(Worker(namespace, script, json.dumps([debug, core, config]), log))
        return made[-1]

    yield start
    for worker in made:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def test_ready_without_privileges(work: Any) -> None:
    """When it reports ready it runs as nobody, on its core, with its name and one capability."""
    worker = work()
    assert worker.report == "ready"
    found = worker.status()
    assert found["Name"] == f"paraglider/{CORE}"
    assert found["Uid"].split() == [str(NOBODY.pw_uid)] * 4
    assert found["Gid"].split() == [str(NOBODY.pw_gid)] * 4
    assert found["Groups"].split() == []
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 1 << 12
    assert int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert os.sched_getaffinity(worker.process.pid) == {CORE}
    title = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
    assert title.startswith(f"paraglider: worker 0 on core {CORE}".encode())


def test_locked_in(work: Any, tmp_path: Path) -> None:
    """Its root directory is the one of the configuration."""
    worker = work()
    assert Path(f"/proc/{worker.process.pid}/root").resolve() == tmp_path / "empty"


def test_stops_when_asked(work: Any) -> None:
    """SIGTERM ends it with exit code 0; the packets of the warm-up are not counted."""
    worker = work()
    assert worker.stop() == 0
    line = worker.await_log("event=stopped")
    assert set(line.split()[3:]) == {"worker=0", f"core={CORE}", "flows=0"}
    assert "level=error" not in worker.log()


def test_other_signals_are_the_parents(work: Any) -> None:
    """Ctrl-C and a hang-up, which reach the whole group, do not end a worker."""
    worker = work()
    worker.process.send_signal(signal.SIGINT)
    worker.process.send_signal(signal.SIGHUP)
    worker.send(53)
    assert worker.process.poll() is None
    assert worker.stop() == 0
    assert "flows=1" in worker.await_log("event=stopped")


def test_counts_what_it_refused(work: Any) -> None:
    """Its last line has its flows, and the other packets by reason."""
    worker = work()
    worker.send(53, 5353, 5353, 99)
    assert worker.stop() == 0
    line = worker.await_log("event=stopped")
    assert "flows=3" in line
    assert "no_service=1" in line


def test_debug_logs_new_flows(work: Any) -> None:
    """With ``-D`` a new flow has a line with both ends and the backend, without any content."""
    worker = work(debug=True)
    worker.send(53)
    line = worker.await_log('event="new flow"')
    wanted = ("protocol=udp", "client=127.0.0.1", "vip=127.0.0.2", "port=53", "backend=127.0.0.3")
    assert all(word in line.split() for word in wanted)
    assert "service=" in line
    assert re.search(r'why="[a-z]+, of \d+ ready"', line)
    assert "secret" not in worker.log()
    assert worker.stop() == 0


def test_without_debug_nothing_a_flow(work: Any) -> None:
    """Without ``-D`` a flow has no line."""
    worker = work()
    worker.send(53)
    assert worker.stop() == 0
    assert "new flow" not in worker.log()


def test_a_fault_is_logged_once(work: Any) -> None:
    """An exception of the handler is logged with the place in the code,
    without the packet's bytes.
    """
    worker = work(extra=BROKEN)
    worker.send(53, 53, 53)
    line = worker.await_log('event="packets lost"')
    assert "level=error" in line
    assert "a fault of ours" in line
    assert "in broken" in line
    assert worker.stop() == 0
    assert worker.log().count("packets lost") == 1
    assert "secret" not in worker.log()


def test_a_queue_with_a_reader(work: Any) -> None:
    """A second worker on the same queue reports the operator's mistake, and the first lives on."""
    first = work()
    second = work()
    assert second.report.startswith(f"1queue {CORE} already has a reader: process")
    assert f"process {first.process.pid} (paraglider/{CORE})" in second.report
    assert second.process.wait(TIMEOUT) == 1
    assert "Traceback" not in second.log()
    first.send(53)
    assert first.stop() == 0
    assert "flows=1" in first.await_log("event=stopped")


def test_a_core_that_is_none(work: Any) -> None:
    """A core that the kernel refuses is reported with the remedy, exit code 2."""
    worker = work(core=4095)
    assert worker.report.startswith("2the kernel refuses core 4095: ")
    assert "`workers`" in worker.report
    assert worker.process.wait(TIMEOUT) == 2
    assert "Traceback" not in worker.log()


def test_a_directory_that_went_away(work: Any, tmp_path: Path) -> None:
    """A chroot directory that is gone since the check keeps the worker from serving as root."""
    worker = work(chroot=str(tmp_path / "gone"))
    assert worker.report.startswith("2cannot drop privileges: ")
    assert worker.process.wait(TIMEOUT) == 2


@pytest.mark.parametrize("family", [4, 6])
def test_every_kind_of_service_warms_up(work: Any, family: int) -> None:
    """TCP, UDP and echo, port-mapped or not, with affinity: no packet of the warm-up raises."""
    vip, prefix, backend = (
        ("127.0.0.2", 8, "127.0.0.3") if family == 4 else ("fd00::2", 64, "fd00::3")
    )
    service = {"vip": f"{vip}/{prefix}", "backends": [backend]}
    services = [
        {**service, "name": "any", "protocol": "any", "affinity": "client"},
        {**service, "name": "web", "protocol": "tcp", "ports": [80, 443], "return": "direct"},
        {
            **service,
            "name": "map",
            "protocol": "tcp",
            "ports": 8080,
            "strategy": "wrr",
            "backends": [{"address": backend, "port": 80}],
        },
    ]
    worker = work(services=services)
    assert worker.report == "ready"
    assert worker.stop() == 0
    assert "flows=0" in worker.await_log("event=stopped")
    assert "level=error" not in worker.log()


POLICY = """
import os

if os.geteuid() == 0 or "CapEff:\\t0000000000000000" not in open("/proc/self/status").read():
    raise RuntimeError("it is imported with rights")
class Picky:
    def __init__(self, **context): pass
    def prepare(self, ready): self.ready = ready
    def pick(self, flow):
        import {module}
        return None if flow.port == 5353 else self.ready[0]
"""

LOAD = """
import functools
from paraglider.config.load import LoadedConfig
from paraglider.config.diagnostics import Marks
from paraglider.host import policies
loaded = LoadedConfig(Config.model_validate(config), Marks(), {file!r})
worker.WorkerSpec = functools.partial(worker.WorkerSpec, registry=policies.load(loaded))
"""


def test_a_policy_picks_without_privileges(work: Any, tmp_path: Path) -> None:
    """A user's class that imports a library during a pick works after chroot; its faults are logged
    once, and counted at the end.
    """
    service = {
        "name": "dns",
        "vip": "127.0.0.2/8",
        "protocol": "udp",
        "ports": [53, 5353],
        "backends": ["127.0.0.3"],
        "strategy": "picky_of_test:Picky",
    }
    (tmp_path / "policies").mkdir(mode=0o755)
    module = tmp_path / "policies" / "picky_of_test.py"
    module.write_text(POLICY.format(module="colorsys"))
    module.chmod(0o644)
    worker = work(
        services=[service],
        extra=LOAD.format(file=str(tmp_path / "paraglider.conf")),
        policies={"budget_ms": 1000},  # a pick that is late is a fault, too
    )
    assert worker.report == "ready", worker.log()
    worker.send(53, 5353, 5353)
    line = worker.await_log("policy at fault")
    assert 'last="pick returned NoneType, no ready backend"' in line
    assert "service=dns" in line
    assert worker.stop() == 0
    line = worker.await_log("event=stopped")
    assert "flows=3" in line
    assert "policy_wrong=2" in line
    assert "policy_raised" not in line


@pytest.mark.parametrize("vip", ["127.0.0.2/8", "fd00::2/64"])
def test_the_warm_up_opens_a_flow_of_each_service(vip: str) -> None:
    """Every strategy has picked once for TCP and UDP before privileges go."""
    picked: list[tuple[str, int]] = []

    class Noted(RoundRobin):
        def __init__(self, context: Context) -> None:
            super().__init__()
            self.service = context.service

        def pick(self, flow: NewFlow) -> Backend:
            picked.append((self.service, flow.protocol))
            return super().pick(flow)

    base = {"vip": vip, "backends": ["127.0.0.3" if vip.startswith("127") else "fd00::3"]}
    services = [
        {**base, "name": "all", "protocol": "any"},
        {**base, "name": "web", "protocol": "tcp", "ports": 80},
        {**base, "name": "dns", "protocol": "udp", "ports": "5300-5399"},
    ]
    config = Config.model_validate({"services": services})
    _warm_up(config, {"rr": Noted}, Heartbeat())
    wanted = {("all", TCP), ("all", UDP), ("web", TCP), ("dns", UDP)}
    assert wanted <= set(picked)


def test_the_next_worker_inherits_the_carriers_position() -> None:
    """As the configuration and the states: what a message said is not lost with a process."""
    service = {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    config = Config.model_validate({"services": [service]})
    spec = WorkerSpec(0, 0, config, 1, 1)
    for carries in (False, True):
        state = StartupState(config, {}, STRATEGIES, carries=carries)
        assert spec.updated(state).carries is carries


def test_all_that_is_counted_has_its_place() -> None:
    """All counters of a packet path, a queue and policies have a place in the memory."""
    config = Config.model_validate(
        {
            "services": [
                {
                    "name": name,
                    "vip": "127.0.0.2/8",
                    "protocol": "tcp",
                    "ports": port,
                    "forward": forward,
                    "backends": [f"127.0.1.{port}"],
                }
                for port, (name, forward) in enumerate(
                    [("web", "nat"), ("bulk", "offload"), ("own", "nat")], 80
                )
            ]
        }
    )
    path = build(config, 0, 0.0)
    own = path.services[-1]
    own.strategy = PolicyGuard(own.strategy, own.strategy, time.monotonic, 1.0)
    path._datapaths["offload"].counts[:] = [1] * len(REASONS)
    for name in own.strategy.counts():
        setattr(own.strategy, name, 1)
    for table in path.tables.values():
        table.evicted = table.expired = 1
    one = SimpleNamespace(drops=SimpleNamespace(overflows=1, overruns=1))
    counted = SimpleNamespace(
        packets=1, batches=1, faults=1, refused=1, queues=(one, one, one), first=1
    )
    counters = Counters()
    CounterWriter(counters, WorkerCounts(path, cast(QueueReader, counted))).tick()
    sample = counters.read()
    proxys = {"conns", "unserved", "exhausted"}
    bpfs = {"carried", "carrier_refused", "flooded"}  # those of a carrier in the kernel
    zero = {name for name, value in sample.head.items() if value == 0}
    assert zero - proxys - bpfs - {"unwritten"} == {
        "busy",
        "flows",
        "active",
        "closing",
        "half_open",
    }
    for name in ("flows", "inactive"):
        assert sample.backend("web", "127.0.1.80")[name] == 0
    assert sample.backend("bulk", "127.0.1.81") == {"conns": 0, "unanswered": 0}
    counters.close()
