"""Clients that open connections one after the other, over both families, for as long as wanted.

Lives here: ``LoadClients``, ``LoadResult``.
Rules: each family has a process of ``paraglider.lab.client`` that writes a line a try into a file;
a place in those files is a moment, and everything is counted from one moment to another. The try
that was under way at a moment is not counted from there on: it began before.
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

#: seconds until tries that do not come count as a failure of the lab
PATIENCE = 30.0
#: tries of one process: without end
_ENDLESS = 100_000_000

#: how many lines each family had
Moment = tuple[int, ...]


@dataclass(frozen=True)
class LoadResult:
    """Who answered how often, and how many tries failed, by what was said."""

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

    def words(self) -> str:
        """One line for a person."""
        shares = [f"{name} {times}" for name, times in sorted(self.answers.items())]
        return " · ".join([*shares, f"failed {self.failed}"])


class LoadClients:
    """The clients of ``net``; they stop with ``stop``, or with the namespace that they are in."""

    def __init__(self, net: Topology, directory: Path, port: int) -> None:
        self._files = [directory / f"crowd{family}" for family in VIP]
        self._processes: list[subprocess.Popen[bytes]] = []
        for vip, file in zip(VIP.values(), self._files, strict=True):
            command = [sys.executable, "-m", "paraglider.lab.client", "tcp", vip, str(port)]
            with file.open("wb") as output:
                self._processes.append(net.client.popen([*command, str(_ENDLESS)], stdout=output))

    def now(self) -> Moment:
        """This moment."""
        return tuple(len(lines) for lines in self._lines())

    def between(self, begin: Moment, end: Moment | None = None) -> LoadResult:
        """All tries that ended from ``begin`` on, until ``end`` or now."""
        ends = end or self.now()
        return _count(
            line
            for lines, first, last in zip(self._lines(), begin, ends, strict=True)
            for line in lines[first:last]
        )

    def next(self, tries: int) -> LoadResult:
        """The next ``tries`` of each family that begin from now on; waits for them. Raises
        ``PlatformError``.
        """
        begin = tuple(place + 1 for place in self.now())
        end = tuple(place + tries for place in begin)
        deadline = time.monotonic() + PATIENCE
        while any(here < there for here, there in zip(self.now(), end, strict=True)):
            if time.monotonic() > deadline:
                raise PlatformError(f"the clients did not end {tries} connections")
            time.sleep(0.05)
        return self.between(begin, end)

    def stop(self) -> None:
        """No further tries."""
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
