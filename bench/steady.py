"""Whether the rate of the first minute is the rate of the tenth.

``python -m bench.steady [--minutes N] [--only nat,offload] [--queries RATE]`` runs wrk with a new
connection for every request at full speed, with default settings, and DNS queries at a steady rate
beside it, each from a port of its own, and prints a line for each minute and forward: connections a
second, the share of the first minute's, failures, queries asked and answered.

Rules: the real set-up and the real daemon, dnsmasq and nginx, in namespaces of its own that go
with it. The exit code is 1 where the last minute's rate is under SHARE of the first's, or a query
has no answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import yaml

from bench import parse
from bench.network import BACKENDS, GATEWAY_WITH_PREFIX, HTTP_PORT, VIP, VIP_WITH_PREFIX, Stage
from paraglider.errors import OperatorError, PlatformError
from paraglider.lab import topology
from paraglider.lab.balancer import Balancer

#: of the first minute's rate, that the last minute must have
SHARE: Final = 0.95
MINUTE: Final = 60
FORWARDS: Final = ("nat", "offload")
_GRACE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of one forward: connections a second, failed ones, DNS queries."""

    rate: float
    failed: int
    asked: int
    answered: int
    again: int


def verdict(minutes: list[Minute]) -> str:
    """What is wrong with ``minutes``; empty where nothing is."""
    faults = []
    share = minutes[-1].rate / minutes[0].rate if minutes[0].rate else 0.0
    if share < SHARE:
        faults.append(f"the last minute has {share:.2f} of the first one's rate")
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


class Run:
    """One forward under load on a stage of its own, until ``close``."""

    def __init__(self, forward: str) -> None:
        prefix = topology.new_prefix()
        directory = Path(tempfile.mkdtemp(prefix=f"paraglider-steady-{prefix}-"))
        directory.chmod(0o755)
        self._stage = Stage(prefix, directory)
        self._forward = forward

    def start(self) -> None:
        """Build the stage, start servers and daemon, wait until they answer."""
        stage = self._stage
        stage.build()
        for address, backend in zip(BACKENDS, stage.topology.backends, strict=True):
            backend.popen(
                [
                    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"),
                    *("--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="),
                    *(f"--listen-address={address}", "--address=/test/192.0.2.1"),
                ]
            )
        text = configuration(self._forward, stage.directory)
        self._balancer = Balancer(stage.topology.balancer, stage.directory, text)
        self._balancer.set_up()
        self._balancer.start()
        stage.await_answers(VIP, len(BACKENDS))

    def minute(self, queries: float, seconds: int = MINUTE) -> Minute:
        """Load it for ``seconds``."""
        client = self._stage.topology.client
        dns = client.popen(
            [sys.executable, "-m", "bench.dns_load", VIP, str(queries), str(seconds)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        wrk = client.run(
            [
                *("wrk", "-t2", "-c64", f"-d{seconds}s", "-H", "Connection: close"),
                f"http://{VIP}:{HTTP_PORT}/",
            ],
            check=False,
            timeout=seconds + _GRACE,
        )
        try:
            out, _ = dns.communicate(timeout=_GRACE)
            run, answers = parse.wrk(wrk.stdout + wrk.stderr), json.loads(out)
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"a load gave no figure: {error}") from None
        return Minute(run.rate, run.failed, answers["asked"], answers["answered"], answers["again"])

    def trouble(self) -> list[str]:
        """What the daemon's log says of errors."""
        return self._balancer.trouble()

    def close(self) -> None:
        """Remove everything."""
        self._stage.close()


@click.command()
@click.option("--minutes", type=click.IntRange(1, 600), default=10, show_default=True)
@click.option("--only", default=",".join(FORWARDS), show_default=True, metavar="FORWARD,…")
@click.option("--queries", type=float, default=4000.0, show_default=True, help="A second.")
def steady(minutes: int, only: str, queries: float) -> None:
    """Load the balancer for minutes and compare the last minute with the first."""
    if os.geteuid() != 0:
        raise OperatorError("network namespaces need root", "run it as root")
    faults = []
    for forward in only.split(","):
        run = Run(forward)
        try:
            run.start()
            done: list[Minute] = []
            for number in range(1, minutes + 1):
                minute = run.minute(queries)
                done.append(minute)
                share = minute.rate / done[0].rate if done[0].rate else 0.0
                click.echo(
                    f"{forward} minute {number}: {minute.rate:.0f} connections/s"
                    f" ({share:.2f} of the first), {minute.failed} failed;"
                    f" DNS: {minute.answered} of {minute.asked} answered, {minute.again} again"
                )
            for line in run.trouble():
                click.echo(f"{forward} log: {line}")
            if fault := verdict(done):
                faults.append(f"{forward}: {fault}")
        finally:
            run.close()
    for fault in faults:
        click.echo(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    steady()
