"""The queues of a worker, as ``netfilter.rules.steering`` numbers them.

Lives here: ``Lengths`` and ``open_queues``.
Rules: for the tunnels, the kernel splits packets that it has merged (GSO) before it queues them, in
the queue of their established traffic, which other packets do not pass, and in that of openings,
where few packets are merged. Packets of tunnels are copied whole.
"""

from __future__ import annotations

from typing import NamedTuple

from paraglider.netfilter.queue import QueueReader, open_queue
from paraglider.netfilter.queue.base import LONGEST_PACKET
from paraglider.netfilter.rules.steering import worker_queues


class Lengths(NamedTuple):
    """How many packets a queue of ``established`` traffic holds, and one of ``openings``."""

    established: int
    openings: int


def open_queues(
    io: str, core: int, lengths: Lengths, copy: int, *, tunnels: bool = False
) -> QueueReader:
    """The queues of the worker on ``core``, bound to this process: established traffic, that of
    ``tunnels`` if there are any, openings, and first packets of offloaded flows.

    ``copy`` bytes of each packet are copied. Raises as ``open_queue``.
    """
    established, openings, offloaded, tunnelled = worker_queues(core)
    first = [open_queue(io, established, lengths.established, copy)]
    split = []
    if tunnels:
        for number, length in ((tunnelled, lengths.established), (openings, lengths.openings)):
            split.append(open_queue(io, number, length, LONGEST_PACKET, merged=False))
        first.append(split[0])
        opened = split[1]
    else:
        opened = open_queue(io, openings, lengths.openings, copy)
    # For offloaded flows without a decision of ours the kernel chooses a backend.
    last = open_queue(io, offloaded, lengths.openings, copy, fail_open=True)
    return QueueReader((*first, opened, last), first=len(first), whole=split)
