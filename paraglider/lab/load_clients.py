"""Clients that open connections one after the other, over both families, until they are stopped.

Lives here: ``LoadClients``, ``LoadResult``.
Rules: each family has a process of ``paraglider.lab.client`` that writes one line per try to a
file. Positions in these files are moments, and results are counted between two moments. A try that
was in progress at a moment does not count as one after it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from paraglider.errors import PlatformError
from paraglider.lab.topology import VIP, Topology

#: timeout of the awaited tries, in seconds
TIMEOUT = 120.0
#: tries of one process: practically unlimited
_ENDLESS = 100_000_000

#: the number of lines of each family
Moment = tuple[int, ...]


@dataclass(frozen=True)
class LoadResult:
    """The number of answers by backend, and of failures by error."""

    answers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Tries without an answer."""
        return self.errors.total()

    @property
    def tries(self) -> int:
        """All of them."""
        return self.answers.total() + self.failed

    def summary(self) -> str:
        """One line of text."""
        shares = [f"{name} {times}" for name, times in sorted(self.answers.items())]
        return " · ".join([*shares, f"failed {self.failed}"])


class LoadClients:
    """The clients in ``net``; they run until ``stop``, or until their namespace is removed."""

    def __init__(self, net: Topology, directory: Path, port: int) -> None:
        self._files = [directory / f"load{family}" for family in VIP]
        self._processes: list[subprocess.Popen[bytes]] = []
        for vip, file in zip(VIP.values(), self._files, strict=True):
            command = [sys.executable, "-m", "paraglider.lab.client", "tcp", vip, str(port)]
            with file.open("wb") as output:
                self._processes.append(net.client.popen([*command, str(_ENDLESS)], stdout=output))

    def now(self) -> Moment:
        """The present moment."""
        return tuple(len(lines) for lines in self._lines())

    def between(self, begin: Moment, end: Moment | None = None) -> LoadResult:
        """The results of the tries that ended between ``begin`` and ``end``, or now."""
        ends = end or self.now()
        return _count(
            line
            for lines, first, last in zip(self._lines(), begin, ends, strict=True)
            for line in lines[first:last]
        )

    def next(self, tries: int) -> LoadResult:
        """Wait for the next ``tries`` of each family that begin now; returns their results. Raises
        ``PlatformError`` after a timeout.
        """
        begin = tuple(place + 1 for place in self.now())
        end = tuple(place + tries for place in begin)
        deadline = time.monotonic() + TIMEOUT
        while any(here < there for here, there in zip(self.now(), end, strict=True)):
            if time.monotonic() > deadline:
                raise PlatformError(f"the clients did not end {tries} connections")
            time.sleep(0.05)
        return self.between(begin, end)

    def stop(self) -> None:
        """Stop the clients."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _lines(self) -> list[list[str]]:
        return [file.read_text(encoding="utf-8").split("\n")[:-1] for file in self._files]


def _count(lines: Iterable[str]) -> LoadResult:
    found = LoadResult()
    for line in lines:
        result = json.loads(line)
        if "error" in result:
            found.errors[result["error"]] += 1
        else:
            found.answers[result["answer"]] += 1
    return found
