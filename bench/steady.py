"""Compares the rate of the last minute with that of the first.

``python -m bench.steady [--minutes N] [--only nat,offload] [--queries RATE]`` runs wrk with a new
connection per request at full speed, with default settings, and DNS queries at a constant rate
beside it, each from its own port, and prints a line per minute and forward method: connections a
second, relative to the first minute, failures, queries asked and answered. Before each minute
kernel DNAT carries the same load for a few seconds, to measure the machine's present speed.

Rules: the real set-up and the real daemon, dnsmasq and nginx, in namespaces that are removed at the
end. The exit code is 1 if the last minute's rate is under SHARE of the first's, also as a ratio to
DNAT's, or if a query has no answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import yaml

from bench import parse
from bench.network import BACKENDS, GATEWAY_WITH_PREFIX, HTTP_PORT, VIP, VIP_WITH_PREFIX, Stage
from bench.peers.base import Peer
from bench.peers.kernel import Dnat
from bench.staging import staged
from paraglider.errors import OperatorError, PlatformError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.interrupts import Interrupts

#: the least rate of the last minute, as a share of the first minute's
SHARE: Final = 0.95
MINUTE: Final = 60
#: seconds of kernel DNAT before each minute
PEER_SECONDS: Final = 8
FORWARDS: Final = ("nat", "offload")
_GRACE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of one forward: connections a second, failed ones, DNS queries.

    ``peer``: connections a second through kernel DNAT just before.
    """

    rate: float
    peer: float
    failed: int
    asked: int
    answered: int
    again: int


def verdict(minutes: list[Minute]) -> str:
    """The faults in ``minutes``; empty if there are none."""
    faults = []
    first, last = minutes[0], minutes[-1]
    share = last.rate / first.rate if first.rate else 0.0
    machine = last.peer / first.peer if first.peer else 1.0
    if share < SHARE * min(machine, 1.0):
        faults.append(
            f"the last minute has {share:.2f} of the first one's rate, kernel DNAT {machine:.2f}"
        )
    unanswered = sum(minute.asked - minute.answered for minute in minutes)
    if unanswered:
        faults.append(f"{unanswered} DNS queries have no answer")
    return "; ".join(faults)


def configuration(forward: str, directory: Path) -> str:
    """The file of one run: default settings, a web and a DNS service."""
    common = {"vip": VIP_WITH_PREFIX, "forward": forward, "backends": list(BACKENDS)}
    document = {
        "chroot": str(directory / "empty"),
        "control": {"socket": str(directory / "control.sock")},
        "network": {
            "public": {"interface": "eth0"},
            "private": {"interface": "eth1", "gateway": [GATEWAY_WITH_PREFIX]},
        },
        "services": [
            {"name": "web", "protocol": "tcp", "ports": HTTP_PORT, **common},
            {"name": "dns", "protocol": "udp", "ports": 53, **common},
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


class Defaults(Peer):
    """A forward with default settings, and dnsmasq on the backends."""

    def __init__(self, forward: str) -> None:
        self.name = self.title = forward
        self._balancer: LabBalancer | None = None

    def start(self, stage: Stage) -> None:
        """Start name servers and daemon."""
        for address, backend in zip(BACKENDS, stage.topology.backends, strict=True):
            backend.popen(
                [
                    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"),
                    *("--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="),
                    *(f"--listen-address={address}", "--address=/test/192.0.2.1"),
                ]
            )
        text = configuration(self.name, stage.directory)
        self._balancer = LabBalancer(stage.topology.balancer, stage.directory, text)
        stage.after.callback(self._balancer.release_pins)
        self._balancer.set_up()
        self._balancer.start()

    def trouble(self) -> list[str]:
        """The errors in the daemon's log."""
        return [] if self._balancer is None else self._balancer.trouble()


def ask(stage: Stage, seconds: int) -> parse.Wrk:
    """A new connection for every request at full speed, for so long."""
    command = ["wrk", "-t2", "-c64", f"-d{seconds}s", "-H", "Connection: close"]
    url = f"http://{VIP}:{HTTP_PORT}/"
    done = stage.topology.client.run([*command, url], check=False, timeout=seconds + _GRACE)
    try:
        return parse.wrk(done.stdout + done.stderr)
    except ValueError as error:
        raise PlatformError(f"a load gave no figure: {error}") from None


def measure(stage: Stage, peer: Stage, queries: float) -> Minute:
    """A minute on ``stage``, after ``PEER_SECONDS`` on ``peer``."""
    machine = ask(peer, PEER_SECONDS)
    dns = stage.topology.client.popen(
        [sys.executable, "-m", "bench.dns_load", VIP, str(queries), str(MINUTE)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    run = ask(stage, MINUTE)
    try:
        out, _ = dns.communicate(timeout=_GRACE)
        answers = json.loads(out)
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise PlatformError(f"the queries gave no figure: {error}") from None
    asked, answered, again = answers["asked"], answers["answered"], answers["again"]
    return Minute(run.rate, machine.rate, run.failed, asked, answered, again)


def line(forward: str, minutes: list[Minute]) -> str:
    """The line of the last one of ``minutes``."""
    minute, first = minutes[-1], minutes[0]
    share = minute.rate / first.rate if first.rate else 0.0
    machine = minute.peer / first.peer if first.peer else 0.0
    return (
        f"{forward} minute {len(minutes)}: {minute.rate:.0f} connections/s"
        f" ({share:.2f} of the first; kernel DNAT {minute.peer:.0f}, {machine:.2f}),"
        f" {minute.failed} failed;"
        f" DNS: {minute.answered} of {minute.asked} answered, {minute.again} again"
    )


@click.command()
@click.option("--minutes", type=click.IntRange(1, 600), default=10, show_default=True)
@click.option("--only", default=",".join(FORWARDS), show_default=True, metavar="FORWARD,…")
@click.option("--queries", type=float, default=4000.0, show_default=True, help="A second.")
def steady(minutes: int, only: str, queries: float) -> None:
    """Load the balancer for minutes and compare the last minute with the first."""
    if os.geteuid() != 0:
        raise OperatorError("network namespaces need root", "run it as root")
    faults = []
    with Interrupts() as interrupts:
        for forward in only.split(","):
            peer, done = Defaults(forward), list[Minute]()
            with staged(Dnat(), interrupts) as machine, staged(peer, interrupts) as stage:
                for _ in range(minutes):
                    done.append(measure(stage, machine, queries))
                    click.echo(line(forward, done))
                for word in peer.trouble():
                    click.echo(f"{forward} log: {word}")
            if fault := verdict(done):
                faults.append(f"{forward}: {fault}")
    for fault in faults:
        click.echo(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    steady()
