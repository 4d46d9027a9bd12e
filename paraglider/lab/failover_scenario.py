"""``paraglider lab -f``: a backend dies under load and returns, a host joins, one drains.

Lives here: ``FailoverLab``, a run of the lab with this scenario.
Rules: as in ``scenario``. Clients open connections over both families all the time, and the results
of a step are counted from its begin. A step waits for a state of the daemon as ``show`` reports it;
a timeout is a fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError, ParagliderError
from paraglider.forward.registry import methods
from paraglider.lab import removal, xdp
from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.interrupts import Interrupts
from paraglider.lab.load_clients import LoadClients, LoadResult
from paraglider.lab.scenario import FAMILIES, HTTP_PORT, Lab, LabOptions, configuration
from paraglider.lab.topology import VIP, Plan, Topology, backend_address

#: methods for which failover can be shown: the backends answer through this host
FORWARDS = tuple(m.name for m in methods() if m.queued and m.owns_vip)
CHECK = {"type": "tcp", "interval": 0.5, "rise": 2, "fall": 2}
FAILOVER = {"check_cycle": 1, "timeout": 1, "rise": 1, "fall": 2, "discover": True}
#: connections of each family that are counted per step
TRIES = 60
#: bytes of the download that continues during a drain
LONG = 40_000_000
#: timeout of a state change, in seconds
TIMEOUT = 60.0


def failover_configuration(text: str) -> str:
    """The lab's file ``text`` for this scenario: HTTP only, with checks and fast failover."""
    document = yaml.safe_load(text)
    document["failover"] = FAILOVER
    document["services"] = [
        {**service, "check": CHECK}
        for service in document["services"]
        if service["name"].startswith("web")
    ]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


class FailoverLab(Lab):
    """One run; ``run`` returns whether it had no faults."""

    def __init__(self, options: LabOptions, console: Console) -> None:
        if options.forward not in FORWARDS:
            raise OperatorError(
                f"the failover lab needs --forward {' or '.join(FORWARDS)}",
                "leave out -f, or choose one of these",
            )
        if options.backends < 2:
            raise OperatorError(
                "the failover lab needs at least two backends", "give --backends 2 or more"
            )
        super().__init__(options, console)
        self._faults: list[str] = []

    def _configuration(self, cores: frozenset[int]) -> str:
        return failover_configuration(configuration(self.options, self.directory, cores))

    def _run(self, interrupts: Interrupts) -> bool:
        options, show = self.options, self._print
        removal.prepare()
        (self.directory / "empty").mkdir(parents=True, mode=0o700)
        show(
            f"[bold]1.[/] Building a client, a balancer, {options.backends} backends and a host"
            f" that is not in the file, as network namespaces [cyan]{self.prefix}-*[/]"
        )
        built = Topology(Plan(backends=options.backends + 1), prefix=self.prefix)
        for number in range(1, options.backends + 1):
            self._serve(built, number)
        xdp.prepare_for(options.carrier, built.namespaces)
        balancer = LabBalancer(built.balancer, self.directory, self._config, ["-f"])
        self._balancer = balancer
        show(
            f"[bold]2.[/] Setting the balancer up: [cyan]paraglider.config -c {balancer.config}[/]"
        )
        with interrupts.deferred():
            balancer.hold_pins()  # as in ``Lab``
            balancer.set_up()
        show(f"[bold]3.[/] Starting the daemon: [cyan]paraglider -c {balancer.config} -f[/]")
        balancer.start()
        clients = LoadClients(built, self.directory, HTTP_PORT)
        FailoverSteps(self, built, clients).run()
        clients.stop()
        for line in balancer.trouble():
            self.fault(f"error in the daemon's log: {line}")
        if not options.keep:
            self._faults += self._end(balancer, interrupts, 9)
        return not self._faults

    def show(self, what: str) -> None:
        """Print ``what``."""
        self._print(what)

    def fault(self, what: str) -> None:
        """Print and record a fault."""
        self._faults.append(what)
        self._print(f"[red]✗[/] {escape(what)}")

    @property
    def control(self) -> ControlClient:
        """The client of the daemon's control socket."""
        return ControlClient(str(self.directory / "control.sock"))

    @staticmethod
    def _serve(built: Topology, number: int) -> None:
        start_backend(built.backends[number - 1], f"backend{number}", http=(HTTP_PORT,))


class FailoverSteps:
    """The steps after start-up, in the order of ``run``."""

    def __init__(self, lab: FailoverLab, built: Topology, clients: LoadClients) -> None:
        self._lab = lab
        self._built = built
        self._clients = clients
        self._all = range(1, lab.options.backends + 1)
        self._calm = 0  # connections outside the outage, of which none may fail

    def run(self) -> None:
        """Run all steps."""
        try:
            self._load()
            outage = self._kill()
            self._revive()
            self._join()
            self._drain()
        except ParagliderError as error:
            self._lab.fault(str(error))
            return
        self._lab.show(
            f"[green]✓[/] Of {self._calm} connections while a backend was out, back, joining or"
            f" draining none failed; of {outage.tries} until the dead one was out"
            f" {outage.failed} did."
        )

    def _load(self) -> None:
        self._lab.show(
            "[bold]4.[/] Clients open connections all the time, over IPv4 and IPv6, until the end"
        )
        self._count("all backends up", self._all)

    def _kill(self) -> LoadResult:
        self._lab.show("[bold]5.[/] Killing backend2")
        moment, since = self._clients.now(), time.monotonic()
        for pid in self._built.backends[1].pids():
            self._built.backends[1].run(["kill", "-KILL", str(pid)], check=False)
        self._await("down", 2)
        took = time.monotonic() - since
        outage = self._clients.between(moment)
        why = self._rows(4)[backend_address(4, 2)]["why"]
        self._lab.show(
            f"   out after {took:.1f} s ({escape(why)}); until then {outage.failed} of"
            f" {outage.tries} connections failed"
        )
        self._count("while it is out", (n for n in self._all if n != 2))
        return outage

    def _revive(self) -> None:
        self._lab.show("[bold]6.[/] Starting backend2 again")
        self._timed("back", lambda: self._start(2), "ready", 2)
        self._count("since it is back", self._all)

    def _join(self) -> None:
        new = len(self._all) + 1
        self._lab.show(f"[bold]7.[/] Starting backend{new}, which is not in the file")
        # Discovery pings the broadcast address, which Linux ignores over IPv4 by default.
        self._built.backends[new - 1].sysctl("net.ipv4.icmp_echo_ignore_broadcasts=0")
        self._timed("joined", lambda: self._start(new), "ready", new)
        self._all = range(1, new + 1)
        self._count("since it joined", self._all)

    def _drain(self) -> None:
        self._lab.show(f"[bold]8.[/] Draining the backend of a download of {LONG:,} bytes")
        download = PausedDownload(self._built)
        number = int(download.backend.removeprefix("backend"))
        self._lab.show(
            "   [cyan]paraglider set backend"
            f" web4/{backend_address(4, number)} state drain[/], and of web6"
        )
        for family in FAMILIES:
            self._set(family, number, "drain")
        self._count(f"while backend{number} drains", (n for n in self._all if n != number))
        got = download.rest()
        self._lab.show(f"   the download from backend{number} continued to {got:,} bytes")
        if got != LONG:
            self._lab.fault(f"{got} bytes of {LONG} were downloaded")

    def _start(self, number: int) -> None:
        start_backend(self._built.backends[number - 1], f"backend{number}", http=(HTTP_PORT,))

    def _timed(self, what: str, begin: Callable[[], None], state: str, number: int) -> None:
        """Run ``begin``, wait for the state, and print how long it took."""
        since = time.monotonic()
        begin()
        self._await(state, number)
        self._lab.show(f"   {what} after {time.monotonic() - since:.1f} s")

    def _await(self, state: str, number: int) -> None:
        """Wait for the state of a backend in both families, and until all workers have it."""
        deadline = time.monotonic() + TIMEOUT
        for family in FAMILIES:
            address = backend_address(family, number)
            while self._rows(family).get(address, {}).get("state") != state:
                if time.monotonic() > deadline:
                    raise OperatorError(f"backend{number} is not {state} after {TIMEOUT:g} s")
                time.sleep(0.05)
            weight = self._rows(family)[address]["weight"]
            # The answer comes when all workers have the state, also if nothing changes.
            self._lab.control.set_backend(f"web{family}", address, weight=weight)

    def _rows(self, family: int) -> dict[str, dict[str, Any]]:
        found = self._lab.control.get("backends", service=f"web{family}")
        return {row["backend"]: row for row in found}

    def _set(self, family: int, number: int, state: str) -> None:
        self._lab.control.set_backend(f"web{family}", backend_address(family, number), state=state)

    def _count(self, when: str, backends: Iterable[int]) -> None:
        """Count the next connections: they must reach these backends, and none may fail."""
        found = self._clients.next(TRIES)
        self._calm += found.tries
        self._lab.show(f"   {when}: {found.summary()}")
        if found.failed:
            self._lab.fault(f"{when}: {', '.join(found.errors)}")
        if found.answers.keys() != {f"backend{number}" for number in backends}:
            self._lab.fault(f"{when}: answers from {', '.join(sorted(found.answers)) or 'none'}")


class PausedDownload:
    """A long download from ``backend`` that pauses half-way."""

    def __init__(self, built: Topology) -> None:
        command = [sys.executable, "-m", "paraglider.lab.client", "download", VIP[4]]
        self._process = built.client.popen(
            [*command, str(HTTP_PORT), str(LONG)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.backend = str(self._line().get("answer", "none"))

    def rest(self) -> int:
        """Finish the download; returns the number of bytes received."""
        assert self._process.stdin is not None  # noqa: S101 - stdin=PIPE
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        got = int(self._line().get("bytes", 0))
        self._process.kill()
        self._process.wait()
        return got

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - stdout=PIPE
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found
