"""Chaos: processes are killed and stopped under load, and no established flow may be lost.

``scripts/soak MINUTES`` (``python -m bench.soak MINUTES [--only nat,offload,dsr] [--transfers N]``)
gives each forward method, ``nat`` with either carrier, its own network, opens long transfers,
interactive connections and UDP flows over both families, and for MINUTES kills (SIGKILL) or stops
(SIGSTOP) one process after the other, including the supervisor, in an order drawn from ``--seed``.
A killed supervisor is restarted as systemd does: its remaining processes are killed, and a second
later it starts again. Then it prints a line per kind of flow, and exits with 1 if one was lost.
Connections of ``proxy`` end with the process that carries them, and are opened again; all others
must continue.

Rules: the real set-up and the real daemon. Everything is removed at the end, also after Ctrl-C.
After each fault it waits until all processes are ready again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.scenario import neighbouring_cores
from paraglider.lab.topology import (
    GATEWAY,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    VIP,
    Plan,
    Topology,
    backend_address,
)

#: the forward methods, with either carrier where they have two: what the services of each have
FORWARDS: Final[Mapping[str, Mapping[str, str]]] = {
    "nat": {"forward": "nat", "carrier": "worker"},
    "nat-bpf": {"forward": "nat", "carrier": "bpf"},
    "offload": {"forward": "offload"},
    "dsr": {"forward": "dsr", "carrier": "worker"},
    "dsr-bpf": {"forward": "dsr", "carrier": "bpf"},
    "proxy": {"forward": "proxy"},
}
PORT: Final = 7000
BACKENDS: Final = 3
#: seconds for which a stopped supervisor stays stopped, before the watchdog would kill it
STANDSTILL: Final = 2.0
#: seconds between the end of a supervisor and its next start (RestartSec)
RESTART: Final = 1.0
#: seconds within which all must be ready after a fault
TIMEOUT: Final = 60.0
#: seconds without a fault once all are ready
BREATH: Final = 1.0
_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one forward method: its flows by kind and family, why some were lost, the
    number of each fault, and how many connections ``ended`` with their process.
    """

    flows: list[dict[str, Any]]
    why: dict[str, int]
    faults: Counter[str]
    ended: int = 0

    @property
    def lost(self) -> int:
        """Flows that were lost."""
        return sum(row["lost"] for row in self.flows)


def configuration(forward: str, directory: Path, workers: int) -> str:
    """The file of one run: a TCP and a UDP service a family, as far as they can be forwarded so."""
    first, last = neighbouring_cores(workers, frozenset(os.sched_getaffinity(0)))
    services = [
        {
            "name": f"{protocol}{family}",
            "vip": f"{VIP[family]}/{PUBLIC_PREFIX[family]}",
            "protocol": protocol,
            "ports": PORT,
            **FORWARDS[forward],
            "check": {"type": "tcp"},
            "backends": [backend_address(family, number + 1) for number in range(BACKENDS)],
        }
        for family in (4, 6)
        for protocol in (("tcp",) if forward == "proxy" else ("tcp", "udp"))
    ]
    for service in services:
        if service["protocol"] == "udp":
            del service["check"]
    document = {
        "workers": {"first_core": first, "last_core": last},
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "network": {
            "public": {"interface": "eth0"},
            "private": {
                "interface": "eth1",
                "gateway": [f"{GATEWAY[f]}/{PRIVATE_PREFIX[f]}" for f in (4, 6)],
            },
        },
        "services": services,
    }
    return yaml.safe_dump(document, sort_keys=False)


class Soak:
    """One forward method under load; a context manager, which removes everything."""

    def __init__(self, forward: str, transfers: int, choice: random.Random) -> None:
        self._forward = forward
        self._transfers = transfers
        self._choice = choice
        self._left = contextlib.ExitStack()
        self._faults: Counter[str] = Counter()
        self._proxied = forward == "proxy"
        self._ended = self._lost = 0

    def __enter__(self) -> Soak:
        try:
            self._build()
        except BaseException:
            self._left.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _build(self) -> None:
        self.directory = directory = Path(tempfile.mkdtemp(prefix="paraglider-soak-"))
        self._left.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        (directory / "empty").mkdir()
        direct = self._forward.startswith("dsr")
        plan = Plan(backends=BACKENDS, direct=direct)
        self.network = net = self._left.enter_context(Topology(plan))
        for number, backend in enumerate(net.backends, 1):
            if direct:  # as `paraglider backend-setup` does it
                backend.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
                backend.ip(*(f"address add {vip} dev lo" for vip in VIP.values()))
            here = [backend_address(family, number) for family in (4, 6)]
            here += VIP.values() if direct else ()
            server = backend.popen(
                _ends("serve", f"backend{number}", PORT, *here), stdout=subprocess.PIPE, env=_PATH
            )
            assert server.stdout is not None  # noqa: S101 - stdout=PIPE
            if server.stdout.readline() != b"listening\n":
                raise PlatformError(f"backend{number} does not listen")
        text = configuration(self._forward, directory, len(os.sched_getaffinity(0)))
        self._balancer = LabBalancer(net.balancer, directory, text)
        self._left.callback(self._end)
        self._balancer.set_up()
        self._balancer.start()
        self._await_all()
        what = ("again", "transfer,echo") if self._proxied else ("load", "transfer,echo,udp")
        arguments = _ends(what[0], self._transfers, PORT, what[1], *VIP.values())
        self._load = net.client.popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_PATH
        )
        self._opened = self._word()["open"]

    def run(self, seconds: float) -> Outcome:
        """Inject faults for ``seconds``, then count the flows."""
        faults = self._order()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._inject(*next(faults))
            time.sleep(BREATH)
        self._ask("")
        while "flows" not in (word := self._word()):
            pass
        flows, why = word["flows"], word["why"]
        if self._proxied:
            open_ = sum(row["open"] for row in flows)
            flows = [{"kind": "of others", "family": "4/6", "open": open_, "lost": self._lost}]
        return Outcome(flows, why, self._faults, self._ended)

    @property
    def opened(self) -> int:
        """Flows that were established before the first fault."""
        return int(self._opened)

    def log(self) -> str:
        """The daemon's log."""
        return self._balancer.log()

    def _order(self) -> Iterator[tuple[str, signal.Signals]]:
        """Each process with each signal, in random order, again and again."""
        while True:
            names = [name for name in self._processes() if name != "supervisor"]
            every = [
                (name, number)
                for name in ("supervisor", *names)
                for number in (signal.SIGKILL, signal.SIGSTOP)
            ]
            self._choice.shuffle(every)
            yield from every

    def _inject(self, name: str, number: signal.Signals) -> None:
        pid = self._processes().get(name)
        if pid is None:
            return
        self._faults[f"{name} {number.name}"] += 1
        carried = self._carried(None if name == "supervisor" else pid) if self._proxied else 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if name == "supervisor":
            if number == signal.SIGSTOP:
                time.sleep(STANDSTILL)
            self._restart()
        else:
            wait_until(lambda: self._processes().get(name, pid) != pid, f"{name} is replaced")
        self._await_all()
        if self._proxied:
            self._count_ended(carried)

    def _carried(self, pid: int | None) -> int:
        """How many connections end with the process ``pid``, or with the daemon."""
        rows = self._workers() or []
        return sum(row.get("active") or 0 for row in rows if pid in (None, row["pid"]))

    def _count_ended(self, carried: int) -> None:
        """Count the flows that ended since the last fault; any beyond ``carried`` are those of
        other processes.
        """
        wait_until(lambda: self._count()["open"] == self.opened, "all are connected again")
        ended = self._count()["ended"]
        self._lost += max(0, ended - self._ended - carried)
        self._ended = ended

    def _count(self) -> dict[str, Any]:
        """The load's present connections."""
        self._ask("count")
        while "ended" not in (word := self._word()):
            pass
        return word

    def _restart(self) -> None:
        """Restart as systemd does: kill the remaining processes of the old daemon, and start a new
        one after a pause.
        """
        left = list(self._processes().values())
        with contextlib.suppress(PlatformError):
            self._balancer.stop(signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(RESTART)
        self._balancer.start()

    def _processes(self) -> dict[str, int]:
        """The daemon's processes by their names in /proc, and the supervisor."""
        pid = self._balancer.pid
        found = {"supervisor": pid}
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    name = Path(f"/proc/{child}/comm").read_text().strip()
                    if name.startswith("para"):
                        found[name] = int(child)
        return found

    def _await_all(self) -> None:
        """Wait until the daemon reports that every process is running."""

        def serve() -> bool:
            rows = self._workers()
            return rows is not None and all(row["up"] for row in rows)

        wait_until(serve, "all processes serve")

    def _workers(self) -> list[dict[str, Any]] | None:
        """The daemon's list of its processes; None if it does not answer."""
        command = [*_PARAGLIDER, "-c", str(self._balancer.config), "show", "workers", "--json"]
        done = self._balancer.namespace.run(command, check=False)
        if done.returncode:
            return None
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def _ask(self, what: str) -> None:
        """Send the load a line."""
        assert self._load.stdin is not None  # noqa: S101 - stdin=PIPE
        self._load.stdin.write(f"{what}\n".encode())
        self._load.stdin.flush()

    def _word(self) -> dict[str, Any]:
        assert self._load.stdout is not None  # noqa: S101 - stdout=PIPE
        line = self._load.stdout.readline()
        if not line:
            raise PlatformError("the load ended by itself")
        word: dict[str, Any] = json.loads(line)
        return word

    def _end(self) -> None:
        with contextlib.suppress(PlatformError):
            self._balancer.stop()
        with contextlib.suppress(PlatformError):
            self._balancer.undo()


_PATH: Final = {"PYTHONPATH": str(_ROOT)}
_PARAGLIDER: Final = (sys.executable, "-m", "paraglider")


def _ends(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bench.soak_ends", *map(str, arguments)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for ``condition``; raises ``PlatformError`` when it does not come true in time."""
    until = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > until:
            raise PlatformError(f"not within {TIMEOUT:g} s: {what}")
        time.sleep(0.05)


def table(outcomes: dict[str, Outcome]) -> Sequence[str]:
    """A line per kind of flow, and the injected faults."""
    lines = [f"{'forward':<8} {'flow':<9} {'family':<6} {'open':>5} {'lost':>5}"]
    for forward, outcome in outcomes.items():
        lines += [
            f"{forward:<8} {row['kind']:<9} IPv{row['family']:<3} {row['open']:>5} {row['lost']:>5}"
            for row in outcome.flows
        ]
        lines += [f"{forward}: {count} lost: {why}" for why, count in outcome.why.items()]
        if outcome.ended:
            lines.append(f"{forward}: {outcome.ended} connections ended with who carried them")
        injected = ", ".join(f"{name} {count}" for name, count in sorted(outcome.faults.items()))
        lines.append(f"{forward}: {outcome.faults.total()} faults: {injected}")
    total = sum(outcome.lost for outcome in outcomes.values())
    return [*lines, f"{total} established flows lost"]


@click.command()
@click.argument("minutes", type=click.FloatRange(0, min_open=True))
@click.option("--only", default=",".join(FORWARDS), show_default=True, metavar="FORWARD,…")
@click.option("--transfers", type=click.IntRange(2), default=200, show_default=True)
@click.option("--seed", type=int, help="Of the order of faults; printed, drawn when not given.")
def soak(minutes: float, only: str, transfers: int, seed: int | None) -> None:
    """Kill and stop every process at random for MINUTES a way of forwarding, under load."""
    if os.geteuid() != 0:
        raise OperatorError("network namespaces need root", "run it as root")
    chosen = only.split(",")
    if unknown := set(chosen) - set(FORWARDS):
        raise OperatorError(
            f"there is no {unknown.pop()} here", f"name some of {', '.join(FORWARDS)}"
        )
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"seed {seed}")
    choice = random.Random(seed)
    outcomes = {}
    with Interrupts():
        for forward in chosen:
            with Soak(forward, transfers, choice) as running:
                click.echo(f"{forward}: {running.opened} flows, {minutes:g} minutes")
                outcomes[forward] = running.run(minutes * 60)
    click.echo("\n".join(table(outcomes)))
    if any(outcome.lost for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    from paraglider.cli.errors import run_command

    run_command(soak, "soak")
