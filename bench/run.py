"""One run: rounds, peers, loads, then the core; shows progress, and removes everything.

Lives here: ``Options`` and ``Run``.
Rules: rounds are interleaved (every peer once a round, another one first each time), so that a
machine whose speed drifts affects all alike. A peer that fails is noted, and the others continue.
Ctrl-C does not interrupt building or removing a stage; at the end of the run, its stage is removed.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import cgroup, core, host
from bench.builds import BUILDS
from bench.loads import LOADS, LoadError, Target
from bench.network import Stage
from bench.peers import PEERS, Peer
from bench.report import sample_line
from bench.results import PeerResult, Results
from paraglider.errors import ParagliderError
from paraglider.lab import namespace, removal, topology
from paraglider.lab.interrupts import Interrupts

CORE = "core"  # what ``--only`` calls the flow table


@dataclass(frozen=True)
class Options:
    """What is run: ``only`` these peers (and ``core``), none means all."""

    quick: bool = False
    rounds: int = 3
    only: tuple[str, ...] = ()

    @property
    def peers(self) -> list[Peer]:
        """The peers to measure, in the order of their table."""
        if self.only:
            return [peer for name, peer in PEERS.items() if name in self.only]
        return [peer for peer in PEERS.values() if peer.quick or not self.quick]

    @property
    def core(self) -> bool:
        """Whether the core is measured."""
        return not self.only or CORE in self.only

    @property
    def seconds(self) -> dict[str, int]:
        """How long each load lasts; ``bulk`` is that long in each direction."""
        if self.quick:
            return {"connections": 2, "keepalive": 1, "bulk": 1, "latency": 1, "udp": 1}
        return {"connections": 5, "keepalive": 4, "bulk": 4, "latency": 4, "udp": 3}

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of flows in the table at which the core is measured."""
        return (10_000, 100_000) if self.quick else (10_000, 100_000, 1_000_000)


class Run:
    """One run with ``options``; ``run`` does it and returns the results."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.results = Results(
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            quick=options.quick,
            host=host.describe(),
            versions=host.versions(),
            seconds=options.seconds,
        )
        self._stage: Stage | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def run(self) -> Results:
        """Measure everything; on Ctrl-C everything is removed before ``KeyboardInterrupt``."""
        with Interrupts() as interrupts:
            try:
                try:
                    with self._progress:
                        self._measure(interrupts)
                finally:
                    self._clean()
            finally:
                interrupts.ignore()
                self._clean()
        return self.results

    def _measure(self, interrupts: Interrupts) -> None:
        cgroup.remove_stale()
        namespace.stale(keep=[note["prefix"] for note in removal.notes().values()])
        options, results = self.options, self.results
        results.peers = [
            PeerResult(p.name, p.title, p.missing(), p.cannot, backends=p.backends, direct=p.direct)
            for p in options.peers
        ]
        there = [result for result in results.peers if result.missing is None]
        probes = [(b, s) for b in BUILDS for s in core.STRATEGIES] if options.core else []
        steps = options.rounds * len(there) * len(LOADS) + len(probes)
        self._task = self._progress.add_task("", total=steps)
        for number in range(options.rounds):
            for result in rotated(there, number):
                self._step(f"round {number + 1} · {result.name}", 0)
                self._measure_peer(PEERS[result.name], result, interrupts)
        for build, strategy in probes:
            self._step(f"flow table · {build} · {strategy}", 0)
            results.core.append(core.measure(build, strategy, options.sizes))
            self._step("", 1)

    def _measure_peer(self, peer: Peer, result: PeerResult, interrupts: Interrupts) -> None:
        """One round of one peer, on a stage of its own; its sample, maybe empty, goes to result."""
        number = len(result.rounds) + 1
        notes: list[str] = []
        result.rounds.append({})
        before = self._completed()
        try:
            with self._on_stage(peer, interrupts) as stage:
                self.results.cpu = stage.meter.source
                target = Target(stage, peer.address, self.options.seconds, notes)
                for name, load in LOADS.items():
                    self._step(f"round {number} · {peer.name} · {name}", 0)
                    if name not in peer.cannot:
                        with self._noting(name, notes):
                            result.rounds[-1].update(load(target))
                    self._step("", 1)
                result.carrier = peer.carrier()
                notes += peer.trouble()
        except ParagliderError as error:
            notes.append(str(error).replace("\n", " ")[-300:])
        self._step("", before + len(LOADS) - self._completed())
        result.notes += [f"round {number}: {note}" for note in notes]
        carrier = f" · carried by {escape(result.carrier)}" if result.carrier else ""
        line = f"{sample_line(result.rounds[-1])}{carrier}"
        self._say(f"round {number} · [cyan]{peer.name}[/]: {line}")
        for note in notes:
            self._say(f"  [yellow]{escape(note)}[/]")

    @contextlib.contextmanager
    def _on_stage(self, peer: Peer, interrupts: Interrupts) -> Iterator[Stage]:
        """A stage on which ``peer`` answers; removed afterwards."""
        prefix = topology.new_prefix()
        name = f"paraglider-bench-{prefix}-{secrets.token_hex(4)}"
        place = Path(tempfile.gettempdir()) / name
        stage = self._stage = Stage(prefix, place, direct=peer.direct, far=peer.far)
        try:
            with interrupts.deferred():
                stage.build()
                peer.start(stage)
            stage.await_answers(peer.address, peer.backends)
            yield stage
        finally:
            with interrupts.deferred():
                self._clean()

    @staticmethod
    @contextlib.contextmanager
    def _noting(load: str, notes: list[str]) -> Iterator[None]:
        try:
            yield
        except LoadError as error:
            notes.append(f"{load}: {error}")

    def _clean(self) -> None:
        if self._stage is not None:
            self._stage.close()
            self._stage = None

    def _step(self, words: str, steps: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=steps, description=words or None)

    def _completed(self) -> int:
        return 0 if self._task is None else int(self._progress.tasks[self._task].completed)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def rotated(peers: Sequence[PeerResult], number: int) -> list[PeerResult]:
    """The peers in the order of round ``number``: each round begins with another one."""
    start = number % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]
