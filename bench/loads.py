"""The loads: what the client does to a peer, and the figures it gives.

Each load is one function of the bench's ``LOADS``; it gets a ``Target`` and returns a sample.
Rules: the tools that everybody knows (wrk, iperf3), so that figures can be had again by hand. A
load that fails raises ``LoadError`` and gives no figure; one that met errors on the way leaves a
note beside its figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bench import cpu, parse
from bench.network import HTTP_PORT, IPERF_PORT, Stage
from bench.results import Sample
from paraglider.errors import PlatformError

CONNECTIONS = 64
DATAGRAM = 64  # bytes of payload
GIGABYTE = 1e9
GRACE = 20.0  # seconds that a tool may take longer than asked

T = TypeVar("T")


class LoadError(Exception):
    """A load that gave no figure, and why."""


@dataclass(slots=True)
class Target:
    """What is loaded: a peer on its stage, at ``address``.

    ``seconds`` is how long each load lasts; ``notes`` collects what was odd.
    """

    stage: Stage
    address: str
    seconds: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def run(self, *command: str, seconds: int) -> str:
        """Run a tool in the client's namespace; returns what it printed."""
        try:
            done = self.stage.topology.client.run(command, check=False, timeout=seconds + GRACE)
        except PlatformError as error:
            raise LoadError(str(error)) from None
        return done.stdout + done.stderr if command[0] == "wrk" else done.stdout

    def wrk(self, load: str, *options: str) -> parse.Wrk:
        """Run wrk for the time of ``load``."""
        seconds = self.seconds[load]
        url = f"http://{self.address}:{HTTP_PORT}/"
        run = _read(parse.wrk, self.run("wrk", *options, f"-d{seconds}s", url, seconds=seconds))
        if run.failed:
            self.notes.append(f"{load}: {run.failed} of {run.requests} requests failed")
        return run

    def iperf3(self, load: str, *options: str) -> parse.Transfer:
        """Run iperf3 for the time of ``load``."""
        seconds = self.seconds[load]
        command = ("iperf3", "-J", "-c", self.address, "-p", str(IPERF_PORT), "-t", str(seconds))
        return _read(parse.iperf3, self.run(*command, *options, seconds=seconds))

    def cpu(self) -> cpu.Reading:
        """The processor time used so far."""
        return cpu.read(self.stage.topology.balancer)


def connections(target: Target) -> Sample:
    """64 connections at a time, a new one for every request."""
    before = target.cpu()
    run = target.wrk("connections", "-t2", f"-c{CONNECTIONS}", "-H", "Connection: close")
    used = cpu.between(before, target.cpu())
    per = run.requests / 10_000
    return {"connections": run.rate, **_costs("connections", used, per)}


def keepalive(target: Target) -> Sample:
    """64 connections that stay, one request after the other on each."""
    return {"keepalive": target.wrk("keepalive", "-t2", f"-c{CONNECTIONS}").rate}


def bulk(target: Target) -> Sample:
    """One TCP connection as fast as it goes: first from the backend, then to it."""
    before = target.cpu()
    down = target.iperf3("bulk", "-R")
    between = target.cpu()
    up = target.iperf3("bulk")
    used = cpu.between(before, between) + cpu.between(between, target.cpu())
    per = (down.received + up.received) / GIGABYTE
    return {"bulk_down": down.gbits, "bulk_up": up.gbits, **_costs("gb", used, per)}


def latency(target: Target) -> Sample:
    """One connection that stays, one request at a time: how long until the answer is there."""
    run = target.wrk("latency", "-t1", "-c1", "--latency")
    return {f"p{percent}": run.percentiles[percent] for percent in (50, 99)}


def udp(target: Target) -> Sample:
    """Datagrams of 64 bytes, sent as fast as one sender can; those that arrive are counted."""
    run = target.iperf3("udp", "-u", "-b", "0", "-l", str(DATAGRAM))
    return {"udp": run.received / DATAGRAM / run.seconds}


LOADS: dict[str, Callable[[Target], Sample]] = {
    "connections": connections,
    "keepalive": keepalive,
    "bulk": bulk,
    "latency": latency,
    "udp": udp,
}


def _read(parser: Callable[[str], T], text: str) -> T:
    try:
        return parser(text)
    except ValueError as error:
        raise LoadError(str(error)) from None


def _costs(metric: str, used: cpu.Used, per: float) -> Sample:
    costs = {f"machine_{metric}": used.machine / per}
    if used.processes is not None:
        costs[f"cpu_{metric}"] = used.processes / per
    return costs
