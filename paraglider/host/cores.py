"""The cores that have a worker, and so the queue numbers.

Lives here: ``worker_cores``, ``agree`` and ``refuse_other_cores``.
Rules: the queue number is the core number. The set-up (which writes the rules) and the daemon
(which reads the queues) must use the same cores. If they differ, the later of the two refuses:
packets would wait in a queue without a reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from paraglider.config.model import Workers
from paraglider.errors import OperatorError
from paraglider.host.ownership import daemon_cores, daemons, state_path, stored
from paraglider.netfilter.rules.steering import cores_of, seeds_of


def worker_cores(
    workers: Workers, allowed: frozenset[int] | set[int] | None = None
) -> tuple[int, ...]:
    """The cores from ``first_core`` to ``last_core``, sorted: one worker each.

    A missing end is the first or last core of ``allowed`` (by default the process's affinity).
    Raises ``OperatorError`` when the range is reversed or has a core that is not allowed.
    """
    may = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    first, last = workers.first_core, workers.last_core
    if first is None and last is None:
        return tuple(may)
    if first is not None and last is not None:
        if first > last:
            raise OperatorError(
                f"workers: first_core {first} is above last_core {last}",
                f"write {{first_core: {last}, last_core: {first}}}",
            )
        chosen = named = list(range(first, last + 1))
    else:
        # With a missing end the range follows the allowed cores, which may have gaps.
        chosen = [core for core in may if (first or 0) <= core and (last is None or core <= last)]
        named = [core for core in (first, last) if core is not None]
    missing = [core for core in named if core not in may]
    if missing:
        raise OperatorError(
            f"workers: this process may not run on {listed(missing)}",
            f"choose from {listed(may)}",
        )
    return tuple(chosen)


def agree(
    cores: tuple[int, ...], families: Iterable[int], steering: int, path: Path | None = None
) -> None:
    """Raise ``OperatorError`` when the set-up of ``families`` was for other cores than ``cores``,
    those of the daemon, or by another seed of the steering. Does nothing on a host without set-up.

    ``path`` is the set-up's state file, by default that of this network namespace.
    """
    content = stored(state_path() if path is None else path) or {"changes": []}
    served = set(families)
    for record in content["changes"]:
        if record["kind"] != "rules" or record["family"] not in served:
            continue
        steered = cores_of(record["text"])
        if steered and set(steered) != set(cores):
            raise OperatorError(
                f"paraglider.config was run for {listed(steered)}, and the daemon would work on"
                f" {listed(cores)}: packets would wait in queues without a reader",
                "run paraglider.config as the daemon is run (the file's `workers`, CPUAffinity=,"
                " AllowedCPUs=, taskset), or name the cores under `workers` and run it again",
            )
        if any(seed != steering for seed in seeds_of(record["text"])):
            raise OperatorError(
                "paraglider.config was run with another `seed`: packets would be steered to other"
                " workers than those that have their flows",
                "run paraglider.config again",
            )


def refuse_other_cores(cores: tuple[int, ...]) -> None:
    """Raise ``OperatorError`` when a daemon runs here on other cores than ``cores``, those of the
    set-up (empty for one without workers).
    """
    for pid in daemons():
        used = daemon_cores(pid)
        if used and cores and set(used) != set(cores):
            raise OperatorError(
                f"the daemon here (process {pid}) works on {listed(used)}, and this set-up would be"
                f" for {listed(cores)}: packets would wait in queues without a reader",
                "run it as the daemon was run (the file's `workers`, CPUAffinity=, AllowedCPUs=,"
                " taskset), or stop the daemon first",
            )


def listed(cores: Sequence[int]) -> str:
    """``cores``, which are sorted, for a message: "core 3" or "cores 0-3, 8"."""
    parts: list[str] = []
    start = previous = cores[0]
    for core in [*cores[1:], None]:
        if core is not None and core == previous + 1:
            previous = core
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        if core is not None:
            start = previous = core
    return ("core " if len(cores) == 1 else "cores ") + ", ".join(parts)
