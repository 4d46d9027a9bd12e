"""Which cores carry a worker, and so which queues there are.

Lives here: ``worker_cores``, and ``agree`` and ``refuse_other_cores`` for where the answer differs.
Rules: the answer is the same for the set-up (which writes the rules) and for the daemon (which
reads the queues) as long as both may run on the same cores; queue number = core number. Where it
is not, one of the two refuses: packets would wait in a queue that nobody reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from paraglider.config.model import Workers
from paraglider.errors import OperatorError
from paraglider.host.ownership import daemon_cores, daemons, state_path, stored
from paraglider.netfilter.rules.steering import cores_of


def worker_cores(
    workers: Workers, allowed: frozenset[int] | set[int] | None = None
) -> tuple[int, ...]:
    """The sorted cores from ``first_core`` to ``last_core`` that carry a worker.

    What the file leaves out is the first or last core that the process may run on (``allowed``,
    by default the process's own affinity). Raises ``OperatorError`` when the range runs backwards
    or names a core that the process may not run on.
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
        # An end that is left out follows what is allowed, which may have gaps.
        chosen = [core for core in may if (first or 0) <= core and (last is None or core <= last)]
        named = [core for core in (first, last) if core is not None]
    missing = [core for core in named if core not in may]
    if missing:
        raise OperatorError(
            f"workers: this process may not run on {listed(missing)}",
            f"choose from {listed(may)}",
        )
    return tuple(chosen)


def agree(cores: tuple[int, ...], families: Iterable[int], path: Path | None = None) -> None:
    """Raise ``OperatorError`` where the set-up of ``families`` was for other cores than ``cores``,
    on which the daemon is to work. Nothing happens where nothing is set up.

    ``path`` is that of the set-up's state, this network namespace's by default.
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
                f" {listed(cores)}: packets would wait where nobody takes them",
                "run paraglider.config as the daemon is run (the file's `workers`, CPUAffinity=,"
                " AllowedCPUs=, taskset), or name the cores under `workers` and run it again",
            )


def refuse_other_cores(cores: tuple[int, ...]) -> None:
    """Raise ``OperatorError`` where a daemon balances here on other cores than ``cores``, for which
    the set-up is to be (none, where it is for no worker).
    """
    for pid in daemons():
        used = daemon_cores(pid)
        if used and cores and set(used) != set(cores):
            raise OperatorError(
                f"the daemon here (process {pid}) works on {listed(used)}, and this set-up would be"
                f" for {listed(cores)}: packets would wait where nobody takes them",
                "run it as the daemon was run (the file's `workers`, CPUAffinity=, AllowedCPUs=,"
                " taskset), or stop the daemon first",
            )


def listed(cores: Sequence[int]) -> str:
    """What a message calls ``cores``, sorted: "core 3" or "cores 0-3, 8"."""
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
