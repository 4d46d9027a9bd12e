"""The default limit of flows per worker, from the memory of the machine.

Lives here: ``flows_for_memory``.
Rules: the result is the same for all calls of one boot, because tables keep their size; if the
memory cannot be read, a small machine is assumed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final

#: bytes of one flow: the table's (``bench/core_probe.py``) and the journal's in /run. Compact flows
#: take less: 12, the journal's, and 113 in the kernel (``bench/carrier_probe.py``). But flows are
#: made compact only where BPF carries them, and after some seconds.
A_FLOW: Final = 305 + 48
#: share of the memory that all workers' flows may fill
SHARE: Final = 8
LEAST: Final = 50_000
MOST: Final = 2_000_000
_UNKNOWN: Final = 512 << 20
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")


@cache
def flows_for_memory() -> int:
    """Flows a worker, rounded down to 10,000, where every core that we may use has one."""
    return flows_in(_memory(), len(os.sched_getaffinity(0)))


def flows_in(memory: int, workers: int) -> int:
    """Flows of each of ``workers`` in their share of ``memory`` bytes."""
    flows = memory // SHARE // workers // A_FLOW
    return max(LEAST, min(MOST, flows - flows % 10_000))


def _memory(limit: Path = _CGROUP) -> int:
    """Bytes of memory that we may use: the machine's, or the control group's (cgroups(7)) where
    that is less.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        memory = _UNKNOWN
    try:
        return min(memory, int(limit.read_text()))
    except (OSError, ValueError):  # there is no limit: no file, or "max"
        return memory
