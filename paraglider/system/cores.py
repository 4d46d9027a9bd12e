"""Which cores carry a worker, and so which queues there are.

Rules: the answer is the same for the set-up (which writes the rules) and for the daemon (which
reads the queues) as long as both may run on the same cores; queue number = core number.
"""

from __future__ import annotations

import os

from paraglider.config.model import Workers
from paraglider.errors import OperatorError


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
            f"workers: this process may not run on {_listed(missing)}",
            f"choose from {_listed(may)}",
        )
    return tuple(chosen)


def _listed(cores: list[int]) -> str:
    """ "core 3" or "cores 0-3, 8"."""
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
