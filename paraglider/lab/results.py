"""The results of a run: answers per backend, their faults, the table. Pure, except ping counters.

Rules: with W workers that each use round robin, the shares of N connections over B backends differ
from N/B by less than W, because each worker's shares are rounded down or up. So one worker must
share exactly, and no tolerance is needed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from rich.table import Table

from paraglider.lab.namespace import Namespace

TITLES = {"tcp": "TCP (HTTP)", "udp": "UDP (echo)", "ping": "ICMP echo"}


@dataclass(frozen=True)
class ResultRow:
    """The tries of one ``protocol`` and ``family``: answers per backend, and errors."""

    protocol: str
    family: int
    counts: tuple[int, ...]
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def title(self) -> str:
        """The protocol and family, for the table."""
        return f"{TITLES[self.protocol]} over IPv{self.family}"

    def with_counts(self, counts: Iterable[int]) -> Self:
        """The same row with other counts."""
        return replace(self, counts=tuple(counts))

    def faults(self, workers: int) -> list[str]:
        """The faults of this row with ``workers`` workers, each with round robin."""
        found = [f"{self.title}: {times}× {error}" for error, times in self.errors.items()]
        silent = [f"backend{i}" for i, count in enumerate(self.counts, 1) if count == 0]
        if silent:
            found.append(f"{self.title}: no answer from {', '.join(silent)}")
        share = sum(self.counts) / len(self.counts)
        if not all(abs(count - share) < workers for count in self.counts):
            shares = "/".join(map(str, self.counts))
            found.append(f"{self.title}: shared {shares}, which is not round robin")
        return found


def count_answers(protocol: str, family: int, output: str, backends: int) -> ResultRow:
    """The row of the ``output`` of ``paraglider.lab.client``."""
    answers: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for line in output.splitlines():
        result = json.loads(line)
        if "error" in result:
            errors[result["error"]] += 1
        else:
            answers[result["answer"]] += 1
    counts = tuple(answers.pop(f"backend{number}", 0) for number in range(1, backends + 1))
    for name in answers:
        if name:
            errors[f"answer from {name!r}, which is not a backend"] += answers[name]
    return ResultRow(protocol, family, counts, errors)


def ping_counts(backends: Sequence[Namespace], family: int) -> list[int]:
    """The number of echo requests of ``family`` per backend, from the kernel's counters."""
    return [
        parse_echos(backend.run(["cat", "/proc/net/snmp", "/proc/net/snmp6"]).stdout, family)
        for backend in backends
    ]


def parse_echos(text: str, family: int) -> int:
    """InEchos of IPv4 or Icmp6InEchos of IPv6 in the text of /proc/net/snmp and snmp6."""
    lines = text.splitlines()
    if family == 6:
        fields = dict(line.split() for line in lines if line.startswith("Icmp6"))
        return int(fields["Icmp6InEchos"])
    names, values = (line.split() for line in lines if line.startswith("Icmp:"))
    return int(dict(zip(names, values, strict=True))["InEchos"])


def table(rows: Sequence[ResultRow], backends: int) -> Table:
    """The table of the lab's output."""
    shown = Table(title="Answers")
    shown.add_column("")
    for number in range(1, backends + 1):
        shown.add_column(f"backend{number}", justify="right")
    shown.add_column("failed", justify="right")
    for row in rows:
        failed = row.errors.total()
        shown.add_row(
            row.title,
            *(str(count) if count else "[red]0[/]" for count in row.counts),
            f"[red]{failed}[/]" if failed else "0",
        )
    return shown
