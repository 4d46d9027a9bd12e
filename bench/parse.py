"""Parses the output of wrk and iperf3, /proc and control groups.

Rules: pure: text in, numbers out; unexpected text raises ``ValueError`` with that text, so that a
failed load never counts as a slow one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TIME_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}  # microseconds


@dataclass(frozen=True, slots=True)
class Wrk:
    """A run of wrk: ``requests`` in ``seconds``; ``percentiles`` in microseconds (``--latency``).

    ``failed`` counts socket errors and answers that were neither 2xx nor 3xx.
    """

    requests: int
    seconds: float
    percentiles: dict[int, float]
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Transfer:
    """The result of the receiver of an iperf3 run: ``received`` bytes in ``seconds``."""

    received: int
    seconds: float

    @property
    def gbits(self) -> float:
        """Gbit/s (10^9 bits)."""
        return self.received * 8 / self.seconds / 1e9


def wrk(text: str) -> Wrk:
    """Parse the output of ``wrk``."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    if total is None:
        raise ValueError(f"wrk printed no total: {_tail(text)}")
    seconds = float(total[2]) * _TIME_UNITS[total[3]] / 1e6
    if int(total[1]) == 0 or seconds == 0:
        raise ValueError(f"wrk had no answer at all: {_tail(text)}")
    failed = 0
    if errors := re.search(r"Socket errors: (.*)", text):
        failed += sum(int(count) for count in re.findall(r"\d+", errors[1]))
    if refused := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        failed += int(refused[1])
    percentiles = {
        int(percent): float(value) * _TIME_UNITS[unit]
        for percent, value, unit in re.findall(
            r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE
        )
    }
    return Wrk(int(total[1]), seconds, percentiles, failed)


def iperf3(text: str) -> Transfer:
    """Parse the client's output of ``iperf3 -J``, TCP or UDP, either direction."""
    try:
        document: Any = json.loads(text)
    except ValueError:
        raise ValueError(f"iperf3 printed no JSON: {_tail(text)}") from None
    if error := document.get("error"):
        raise ValueError(f"iperf3: {error}")
    try:
        received = document["end"]["sum_received"]
        transfer = Transfer(int(received["bytes"]), float(received["seconds"]))
    except (KeyError, TypeError):
        raise ValueError("iperf3 printed no sum of what was received") from None
    if transfer.received <= 0 or transfer.seconds <= 0:
        raise ValueError("iperf3: nothing was received")
    return transfer


def process_ticks(stat: str) -> int:
    """User and system time, in clock ticks, of ``/proc/PID/stat`` (proc(5))."""
    # The name, in parentheses, may hold spaces and parentheses of its own.
    fields = stat.rpartition(")")[2].split()
    try:
        return int(fields[11]) + int(fields[12])
    except (IndexError, ValueError):
        raise ValueError(f"this is no /proc/PID/stat: {_tail(stat)}") from None


def busy_ticks(stat: str) -> int:
    """Clock ticks in which the processors were not idle, by ``/proc/stat`` (proc(5)).

    Interrupts and softirqs, where the kernel forwards packets, are part of it.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = _cpu_ticks(stat)
    return user + nice + system + irq + softirq + steal


def interrupt_ticks(stat: str) -> int:
    """Clock ticks in interrupts and softirqs, by ``/proc/stat`` (proc(5))."""
    return sum(_cpu_ticks(stat)[5:7])


def cgroup_usage(stat: str) -> float:
    """Microseconds of CPU time, by the ``cpu.stat`` of a control group (version 2)."""
    match = re.search(r"^usage_usec (\d+)$", stat, re.MULTILINE)
    if match is None:
        raise ValueError(f"this is no cpu.stat: {_tail(stat)}")
    return float(match[1])


def version(text: str) -> str:
    """The first version number in a program's output, ``unknown`` without one."""
    match = re.search(r"\d+(?:\.\d+)+(?:[-+~][\w.+~-]+)?", text)
    return match[0] if match else "unknown"


def refusal(text: str) -> str:
    """The first error of ``paraglider check``, without file, line and remedy."""
    lines = [line for line in text.splitlines() if not line.startswith("warning:")]
    first = re.sub(r"^(?:paraglider: )?\S+:\d+:\d+: ", "", lines[0].strip()) if lines else ""
    return first.partition(";")[0].replace("`", "") or "paraglider check refuses it"


def _cpu_ticks(stat: str) -> list[int]:
    match = re.match(r"cpu ((?: +\d+){8})", stat)
    if match is None:
        raise ValueError(f"this is no /proc/stat: {_tail(stat)}")
    return [int(ticks) for ticks in match[1].split()]


def _tail(text: str) -> str:
    return repr(text.strip()[-200:])
