"""The impact of a change of the configuration: the share of flows that get another backend.

Lives here: ``moved`` (of all possible flows), ``impact`` (of one flow), ``overlaps`` (the services
that get the ports of a service).
Rules: look-up tables are compared entry by entry, other hashes by SAMPLES fixed flows. Strategies
that take turns move no flow. Two backends are the same if a flow reaches the same address and port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from paraglider.core.explain import Explanation
from paraglider.core.flow import ICMP, ICMP6
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import NewFlow

#: sampled flows: a share of 10 % is measured within 0.5 % (95 % confidence)
SAMPLES: Final = 16384


@dataclass(frozen=True, slots=True)
class Moved:
    """``moved`` of ``of`` flows get another backend; with ``sampled`` these are sampled flows,
    otherwise the entries of a table.
    """

    moved: int
    of: int
    sampled: bool

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.moved / self.of


class Impact(StrEnum):
    """The impact of a change on a flow."""

    KEPT = "kept"  # the same backend
    MOVED = "moved"  # another backend, if it is opened again
    LOST = "lost"  # its service or its backend is removed
    OPEN = "open"  # unknown: the strategy takes turns, before or after


@dataclass(frozen=True, slots=True)
class Overlap:
    """Ports ``first`` to ``last`` of ``protocol`` and the ``service`` that has them after the
    change, if any.
    """

    protocol: int
    first: int
    last: int
    service: VirtualService | None


def overlaps(service: VirtualService, before: ServiceMap, after: ServiceMap) -> Iterator[Overlap]:
    """The ports of ``service`` in ``before``, in pieces, each with the service that has it in
    ``after``. Ports on which a narrower service takes precedence are left out.
    """
    rivals = [s for s in (*before.services, *after.services) if s.vip == service.vip]
    edges = {edge for rival in rivals for first, last in rival.ports for edge in (first, last + 1)}
    for protocol in service.protocols:
        echo = protocol in (ICMP, ICMP6)  # has no ports
        piece: Overlap | None = None
        for first, last in (service.ports[0],) if echo else service.ports:
            starts = [first, *(() if echo else sorted(e for e in edges if first < e <= last))]
            for start, following in zip(starts, [*starts[1:], last + 1], strict=True):
                port = start.to_bytes(2, "big")
                if before.find(protocol, service.vip, port) is not service:
                    continue
                now = after.find(protocol, service.vip, port)
                if piece is not None and (piece.service, piece.last) == (now, start - 1):
                    piece = replace(piece, last=following - 1)
                    continue
                if piece is not None:
                    yield piece
                piece = Overlap(protocol, start, following - 1, now)
        if piece is not None:
            yield piece


def moved(before: VirtualService, after: VirtualService, protocol: int, port: int) -> Moved | None:
    """The share of all flows to ``port`` that get another backend in ``after``; None if one of the
    strategies does not hash.
    """
    old, new = before.strategy, after.strategy
    if not (old.hashes and new.hashes):
        return None
    if not (before.pool.ready and after.pool.ready):
        return None
    one, other = old.table(), new.table()
    if one is not None and other is not None and one.key == other.key:
        pairs = list(zip(one.slots, other.slots, strict=True))
        return Moved(sum(not same(a, b, port) for a, b in pairs), len(pairs), sampled=False)
    flows = _samples(before, protocol, port)
    count = sum(not same(old.pick(flow), new.pick(flow), port) for flow in flows)
    return Moved(count, SAMPLES, sampled=True)


def _samples(service: VirtualService, protocol: int, port: int) -> Iterator[NewFlow]:
    size = len(service.vip)
    for number in range(SAMPLES):
        drawn = blake2b(number.to_bytes(4, "big"), digest_size=size + 2).digest()
        key = drawn[:size] + service.vip + drawn[size:] + port.to_bytes(2, "big")
        yield NewFlow(protocol, key, 0.0)


def same(one: Backend, other: Backend, port: int) -> bool:
    """Whether a flow to ``port`` of the VIP reaches the same address and port by both."""
    return (one.address, one.port or port) == (other.address, other.port or port)


def impact(flow: NewFlow, actual: Backend | None, lives: bool, after: Explanation) -> Impact:
    """The impact on ``flow``, whose backend is ``actual`` (None: unknown).

    A flow that ``lives`` is lost only with its backend; a new flow is also lost if no backend takes
    new flows.
    """
    service = after.service
    if service is None:
        return Impact.LOST
    there = service.pool.backends if lives else service.pool.ready
    if not there or (actual is not None and not any(same(actual, b, flow.port) for b in there)):
        return Impact.LOST
    if after.backend is None and actual is not None and lives:
        return Impact.KEPT
    if actual is None or after.backend is None:
        return Impact.OPEN
    return Impact.KEPT if same(actual, after.backend, flow.port) else Impact.MOVED
