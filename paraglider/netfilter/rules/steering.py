"""Steering: which worker gets a packet, and in which of its queues.

The worker is chosen by the kernel's hash of the client's end, as a mark. Packets that may open a
flow have a queue of their own, so that a flood of them does not delay packets of existing flows.
These are TCP segments with SYN alone and the backends' answers to them, except from clients that
``forward.openings`` has proved, ICMP echo requests, and datagrams of unknown flows: a datagram
itself does not show whether it is a first or a later one. The first packets of offloaded flows have
a third queue: the kernel has a backend for them too, so they pass if the queue is full. The
established traffic of tunnels has a fourth one, since the kernel splits merged packets for it.

Lives here: the marks, the HMARK options and the numbers of the queues.
Rules: both directions of a flow must give the same mark. HMARK hashes the two addresses in sorted
order and then the two ports in sorted order; fields that the tuple omits are zero (Linux,
net/netfilter/xt_HMARK.c): so ``src,sport`` of a request equals ``dst,dport`` of its reply. It uses
no ports for ICMP, and hashes the inner packet of an ICMP error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from paraglider.config.model import Service

MARK_BASE = 0x50470000
"""Mark of the first worker; worker number i (in the order of the cores) has MARK_BASE + i."""

MARK_MASK = 0xFFFF0000
"""The bits that tell a mark of ours from another's."""

OURS = f"0x{MARK_BASE:08x}/0x{MARK_MASK:08x}"
"""Mark and mask, as ``-m mark --mark`` takes them."""


UNKNOWN_MARK = 0x50480000
"""Mark of a datagram of no flow that is known (``forward.openings``), until it is steered."""

KNOWN_MARK = 0x50490000
"""Mark of a SYN of a client that is known, and of its answer, until it is steered."""

UNKNOWN, KNOWN = f"0x{UNKNOWN_MARK:08x}", f"0x{KNOWN_MARK:08x}"
"""The same, as ``-m mark --mark`` takes them."""

OPENINGS = 4096
"""Queue number of what may open a flow, for the worker of core 0; there are cores up to 4095."""

OFFLOADED = 8192
"""Queue number of the first packets of offloaded flows, for the worker of core 0."""

TUNNELS = 12288
"""Queue number of the established traffic of tunnels, for the worker of core 0."""

QUEUE_NAMES = ("queue", "openings", "offloaded", "tunnels")
"""What the queues of a worker are called where they are shown, in the order of their numbers."""

#: a TCP segment that opens a connection, and the one that answers it, of a client not known
OPENS = f"-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m mark ! --mark {KNOWN}"
ANSWERS = f"-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK -m mark ! --mark {KNOWN}"


def worker_queues(core: int) -> tuple[int, int, int, int]:
    """The queues of the worker on ``core``: established traffic, openings, first packets of
    offloaded flows, and established traffic of tunnels.
    """
    return core, OPENINGS + core, OFFLOADED + core, TUNNELS + core


def cores_of(text: str) -> tuple[int, ...]:
    """The cores of the workers that the rules in ``text`` (iptables-save's form) queue for."""
    numbers = re.findall(r"--queue-num (\d+)", text)
    return tuple(sorted({int(number) % OPENINGS for number in numbers}))


def seeds_of(text: str) -> frozenset[int]:
    """The seeds of the steering in the rules in ``text`` (iptables-save's form)."""
    return frozenset(int(seed, 16) for seed in re.findall(r"--hmark-rnd 0x([0-9a-f]+)", text))


def worker_mark(index: int) -> int:
    """The mark of the worker at ``index`` in the sorted cores; ValueError when out of range."""
    if not 0 <= index <= 0xFFFF:
        raise ValueError(f"worker {index} has no mark; there are 65536")
    return MARK_BASE + index


def steered_by_client(services: tuple[Service, ...]) -> bool:
    """Whether the services of one family are steered by the client's address alone.

    One service with ``affinity: client`` is enough: affinity is kept per worker, and a reply or an
    ICMP error does not show which service it belongs to.
    """
    return any(service.affinity == "client" for service in services)


@dataclass(frozen=True, slots=True)
class Steering:
    """How the packets of one family are spread: the workers' cores, the seed, the hash tuple.

    ``seed`` (32 bits) keeps strangers from aiming at one worker. ``by_client`` leaves the ports
    out of the hash.
    """

    cores: tuple[int, ...]
    seed: int
    by_client: bool = False

    def by_source(self) -> str:
        """The HMARK target where the client is the source: requests, and errors about them."""
        return self._hmark("src" if self.by_client else "src,sport")

    def by_destination(self) -> str:
        """The HMARK target where the client is the destination: replies, and errors about them."""
        return self._hmark("dst" if self.by_client else "dst,dport")

    def queues(self) -> tuple[tuple[int, int], ...]:
        """(mark, queue number) of every worker, for established traffic: the number of its core."""
        return tuple((worker_mark(index), core) for index, core in enumerate(self.cores))

    def openings(self) -> tuple[tuple[int, int], ...]:
        """(mark, queue number) of every worker, for packets that may open a flow."""
        return tuple((mark, OPENINGS + core) for mark, core in self.queues())

    def offloaded(self) -> tuple[tuple[int, int], ...]:
        """(mark, queue number) of every worker, for first packets of offloaded flows."""
        return tuple((mark, OFFLOADED + core) for mark, core in self.queues())

    def tunnels(self) -> tuple[tuple[int, int], ...]:
        """(mark, queue number) of every worker, for established traffic of tunnels."""
        return tuple((mark, TUNNELS + core) for mark, core in self.queues())

    def _hmark(self, fields: str) -> str:
        return (
            f"-j HMARK --hmark-tuple {fields} --hmark-mod {len(self.cores)}"
            f" --hmark-offset 0x{MARK_BASE:08x} --hmark-rnd 0x{self.seed:08x}"
        )
