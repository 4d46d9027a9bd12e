"""The loads: the client's work on a peer, and the resulting figures.

Each load is one function of the bench's ``LOADS``; it gets a ``Target`` and returns a sample.
Rules: common tools (wrk, iperf3), so that figures can be reproduced by hand. A load that fails
raises ``LoadError`` and has no figure; one with some errors has a note with its figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import PIPE, TimeoutExpired
from typing import TypeVar

from bench import cpu, parse
from bench.network import HTTP_PORT, IPERF_PORT, Stage
from bench.results import Sample

CONNECTIONS = 64
DATAGRAM = 64  # bytes of payload
DATAGRAMS = 20_000  # a second, of which few are lost
GIGABYTE = 1e9
MEGABYTE = 1e6
GRACE = 20.0  # seconds that a tool may exceed its time

T = TypeVar("T")


class LoadError(Exception):
    """A load that gave no figure, and why."""


@dataclass(slots=True)
class Target:
    """A loaded peer on its stage, at ``address``.

    ``seconds`` is the duration of each load; ``notes`` collects irregularities.
    """

    stage: Stage
    address: str
    seconds: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def run(self, *command: str, seconds: int) -> str:
        """Run a tool in the client's namespace, where its CPU time counts; returns its output."""
        tool = self.stage.topology.client.popen(command, stdout=PIPE, stderr=PIPE)
        self.stage.meter.add(tool.pid)
        try:
            output, errors = tool.communicate(timeout=seconds + GRACE)
        except TimeoutExpired:
            tool.kill()
            tool.communicate()
            raise LoadError(f"{' '.join(command)}: no end after {seconds + GRACE:g} s") from None
        return (output + errors if command[0] == "wrk" else output).decode(errors="replace")

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
        """The CPU time used so far."""
        return self.stage.meter.read()


def connections(target: Target) -> Sample:
    """64 connections at a time, a new one for every request."""
    before = target.cpu()
    run = target.wrk("connections", "-t2", f"-c{CONNECTIONS}", "-H", "Connection: close")
    used = cpu.between(before, target.cpu())
    sample = {"connections": run.rate, "us_connection": used.bed / run.requests}
    return {**sample, **_process_cost("cpu_connections", used, run.requests / 10_000)}


def keepalive(target: Target) -> Sample:
    """64 persistent connections, one request after the other on each."""
    before = target.cpu()
    run = target.wrk("keepalive", "-t2", f"-c{CONNECTIONS}")
    used = cpu.between(before, target.cpu())
    return {"keepalive": run.rate, "us_request": used.bed / run.requests}


def bulk(target: Target) -> Sample:
    """One TCP connection at full speed: first from the backend, then to it."""
    before = target.cpu()
    down = target.iperf3("bulk", "-R")
    between = target.cpu()
    up = target.iperf3("bulk")
    used_down, used_up = cpu.between(before, between), cpu.between(between, target.cpu())
    sample = {
        "bulk_down": down.gbits,
        "bulk_up": up.gbits,
        "us_mb_down": used_down.bed / (down.received / MEGABYTE),
        "us_mb_up": used_up.bed / (up.received / MEGABYTE),
    }
    gigabytes = (down.received + up.received) / GIGABYTE
    return {**sample, **_process_cost("cpu_gb", used_down + used_up, gigabytes)}


def latency(target: Target) -> Sample:
    """One connection with one request at a time: the response times."""
    run = target.wrk("latency", "-t1", "-c1", "--latency")
    return {f"p{percent}": run.percentiles[percent] for percent in (50, 99)}


def udp(target: Target) -> Sample:
    """Datagrams of 64 bytes. The rate is of those that arrive from one sender at full speed.

    The CPU time is of DATAGRAMS a second. At full speed half of them are lost at the receiver, but
    cost as much as the others: a cheaper way would let the sender send more, and seem to cost more.
    """
    options = ("-u", "-l", str(DATAGRAM), "-b")
    run = target.iperf3("udp", *options, "0")
    before = target.cpu()
    paced = target.iperf3("udp", *options, str(DATAGRAMS * DATAGRAM * 8))
    used = cpu.between(before, target.cpu())
    rate = run.received / DATAGRAM / run.seconds
    return {"udp": rate, "us_datagram": used.bed / (paced.received / DATAGRAM)}


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


def _process_cost(metric: str, used: cpu.Used, units: float) -> Sample:
    return {} if used.processes is None else {metric: used.processes / units}
