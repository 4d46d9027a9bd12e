"""The rules of ``paraglider start``: the kernel chooses the backend and forwards the packets.

Lives here: the nft table, the rule that accepts its packets in the host's firewall, and the meaning
of the marks.

    prerouting   the first packet of a connection gets a mark in conntrack: by turns, or by a hash
                 of the client's address
    answered     counted; the destination becomes the backend of the mark
    postrouting  rewrites the source, as in ``nft``
    forward      counts packets and bytes of each backend, in both directions
    tracked      packets that conntrack calls invalid are dropped, as with a daemon

Rules: those of ``nft``, whose maps are used. Turns are exact: a counter modulo the sum of the
weights selects the mark, and every backend has as many numbers as its weight, in the order of
smooth weighted round robin, so that a heavy backend gets no bursts. Counters belong to a mark, so
those of a backend that stays in the file continue.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from paraglider.config.diagnostics import Problem
from paraglider.config.model import Config, Service
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.wrr import SmoothRoundRobin
from paraglider.netfilter.rules import answers, conntrack
from paraglider.netfilter.rules.filter import accept_table, no_redirects
from paraglider.netfilter.rules.marks import OFFLOADED, backend_marks, target_port
from paraglider.netfilter.rules.nft import (
    CARRIED,
    CARRIED_CHAIN,
    MAPS,
    NAT_CHAINS,
    NFT_FAMILY,
    KernelTable,
    add_rules,
    by_hash,
    carried,
    counter_elements,
    counter_maps,
    counters_of,
    elements,
    exemptions,
    first_packets,
    hash_key,
    in_order,
    postrouting,
    skeleton,
    spans,
    timed,
    tracking,
    translation,
)
from paraglider.netfilter.rules.ruleset import RuleSet, joined

MAX_TURN = 4096
"""Numbers in one round; weights that need more are rounded to their share of it."""

COUNTED = ("begun", *CARRIED)
"""The counters of each backend: connections, packets and bytes in both directions."""

_MAPS = {**MAPS, **counter_maps(COUNTED)}
_BASES = {**NAT_CHAINS, **CARRIED_CHAIN}
_CHAINS = ("answered",)


def static_table(
    config: Config, family: int, hairpin: tuple[str, ...], seed: int
) -> KernelTable | None:
    """The table of ``family`` (4 or 6), or None without a service of it.

    ``config`` is the result of ``forward.static.checks.kernel_only``; ``hairpin`` and ``seed`` are
    as in ``forward.offload.table.offload_table``.
    """
    services = [service for service in config.services if service.family == family]
    if not services:
        return None
    marks = backend_marks(config)
    every = [mark for service in services for mark in marks[service.name]]
    lines = [
        *skeleton(family, counters_of(every, COUNTED), _MAPS, _BASES, _CHAINS),
        *tracking(config, family),
        *elements(services, marks, family),
        *counter_elements(every, COUNTED, family),
        *add_rules("prerouting", _prerouting(config, services, marks, family, seed), family),
        *add_rules("answered", _answered(config, family), family),
        *add_rules("postrouting", postrouting(hairpin), family),
        *add_rules("forward", (*carried(), answers.strays(NFT_FAMILY[family])), family),
    ]
    return KernelTable.of(family, lines, services, marks)


def static_rules(config: Config, family: int) -> RuleSet | None:
    """The rule set of ``family`` beside the table, or None without a service of it."""
    if not any(service.family == family for service in config.services):
        return None
    accept = f"-m connmark --mark {OFFLOADED} -j ACCEPT"
    return RuleSet(family, joined((accept_table((accept,)), no_redirects(family))))


def served(config: Config, family: int) -> list[dict[str, Any]]:
    """The meaning of the marks, by service, as data for JSON.

    ``share`` is a backend's share of new connections, from 0 to 1.
    """
    marks = backend_marks(config)
    rows = []
    for service in config.services:
        if service.family != family:
            continue
        shares = _shares(service, marks[service.name])
        total = sum(part for _, part in shares)
        backends = [
            {
                "mark": mark,
                "address": str(backend.address),
                "port": target_port(service, backend) or None,
                "weight": backend.weight,
                "share": round(part / total, 6),
            }
            for backend, (mark, part) in zip(service.backends, shares, strict=True)
        ]
        rows.append(
            {
                "name": service.name,
                "vip": str(service.vip.ip),
                "protocol": service.protocol,
                "ports": "" if service.all_ports else ",".join(map(str, service.ports)),
                "strategy": service.strategy,
                "affinity": service.affinity,
                "backends": backends,
            }
        )
    return rows


def rounded(config: Config) -> list[Problem]:
    """Warnings about weights that do not fit into ``MAX_TURN`` numbers."""
    found = []
    for index, service in enumerate(config.services):
        weights = _weights(service)
        if _by_turns(service) and _turns(weights) != _reduced(weights):
            what = f"the weights are rounded to parts of {MAX_TURN}: their sum is {sum(weights)}"
            remedy = "write smaller ones, or such that have a common divisor"
            found.append(Problem(("services", index, "backends"), what, remedy, at="key"))
    return found


def _prerouting(
    config: Config,
    services: list[Service],
    marks: dict[str, tuple[int, ...]],
    family: int,
    seed: int,
) -> Iterator[str]:
    yield 'iifname "lo" return'
    yield from exemptions(config, family)
    mark_of = {service.name: _mark(service, marks[service.name], seed) for service in services}
    for service, _, match in first_packets(services, family):
        yield f"{match} ct mark set {mark_of[service.name]} goto answered"
    yield conntrack.refused(NFT_FAMILY[family])


def _answered(config: Config, family: int) -> Iterator[str]:
    yield "counter name ct mark map @begun"
    yield from timed(config, family)
    yield from translation("ct mark")


def _mark(service: Service, marks: tuple[int, ...], seed: int) -> str:
    """The expression that gives a new connection of ``service`` its mark."""
    shares = _shares(service, marks)
    if not _by_turns(service):
        fields, key = f"{NFT_FAMILY[service.family]} saddr", hash_key(service, seed)
        return by_hash(fields, key, in_order(service, shares))
    ranges, total = spans(_interleaved(shares))
    return f"numgen inc mod {total} map {ranges}"


def _by_turns(service: Service) -> bool:
    return not service.strategy_class.hashes and service.affinity != "client"


def _shares(service: Service, marks: tuple[int, ...]) -> list[tuple[int, int]]:
    """The marks of the backends, each with its share of the numbers."""
    weights = _weights(service)
    parts = _turns(weights) if _by_turns(service) else weights
    return list(zip(marks, parts, strict=True))


def _weights(service: Service) -> list[int]:
    """The weights; 1 or 0 if the strategy ignores them."""
    weights = [backend.weight for backend in service.backends]
    return weights if service.strategy_class.weighs else [min(weight, 1) for weight in weights]


def _turns(weights: list[int]) -> list[int]:
    """The turns of each in one round: the reduced weights, rounded if they are too many."""
    parts = _reduced(weights)
    total = sum(parts)
    if total <= MAX_TURN or max(parts) == 1:
        return parts
    return [max(1, round(part * MAX_TURN / total)) if part else 0 for part in parts]


def _reduced(weights: list[int]) -> list[int]:
    divisor = math.gcd(*weights)
    return [weight // divisor for weight in weights]


def _interleaved(shares: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """One round of turns as runs: marks, each with its number of turns in a row."""
    if len({part for _, part in shares if part}) == 1:
        return shares
    mark_of = {Backend(str(mark), b"", weight=part): mark for mark, part in shares if part}
    turns = SmoothRoundRobin()
    turns.prepare(tuple(mark_of))
    anyone = NewFlow(0, b"", 0.0)
    runs: list[tuple[int, int]] = []
    for _ in range(sum(part for _, part in shares)):
        mark = mark_of[turns.pick(anyone)]
        before = runs.pop() if runs and runs[-1][0] == mark else (mark, 0)
        runs.append((mark, before[1] + 1))
    return runs
