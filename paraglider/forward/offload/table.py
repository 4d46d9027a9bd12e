"""The nft table by which the kernel translates ``forward: offload`` connections.

    prerouting   translates a worker's mark; without one the service's hash decides; a connection
                 may begin with a backend's segment (``netfilter.rules.answers``)
    answered     the mark is stored in conntrack, the destination becomes the backend
    unanswered   a mark by the kernel's hash of the client's end, by weight, over the same maps
    postrouting  rewrites the source, if the service is configured so, or if the client is in the
                 backends' own network, where the backend would answer it directly
    forward      counts packets and bytes of each backend, in both directions
    tracked      drops packets that conntrack calls invalid; see ``netfilter.rules.conntrack``

Rules: those of ``netfilter.rules.nft``. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from paraglider.config.model import Config, Service
from paraglider.netfilter.rules import answers, conntrack
from paraglider.netfilter.rules.marks import BASE, MASK, backend_marks
from paraglider.netfilter.rules.nft import (
    CARRIED,
    CARRIED_CHAIN,
    COUNTED,
    GONE,
    MAPS,
    NAT_CHAINS,
    NFT_FAMILY,
    TABLE,
    UNANSWERED,
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
    timed,
    tracking,
    translation,
)
from paraglider.netfilter.rules.steering import MARK_BASE, MARK_MASK

_CHAINS = ("answered", UNANSWERED, answers.ADOPTING)


def offload_table(
    config: Config, family: int, hairpin: tuple[str, ...], seed: int
) -> KernelTable | None:
    """The table of ``family`` (4 or 6), or None when it has no ``forward: offload`` service.

    ``hairpin`` are the interfaces towards the backends: packets that enter and leave by the same
    one get the balancer's address as source. ``seed`` is the 32-bit seed of the hash for services
    whose strategy has none.
    """
    services = _services(config, family)
    if not services:
        return None
    marks = backend_marks(config)
    weights = _weights(services, marks)
    every = [mark for service in services for mark in marks[service.name]]
    name, place = NFT_FAMILY[family], f"{NFT_FAMILY[family]} {TABLE}"
    ends = answers.answering(services, marks)
    adopted = sorted({end.mark for end in ends})
    counters = (UNANSWERED, GONE, *counters_of(every, CARRIED))
    counters += tuple(counters_of(adopted, (answers.ADOPTED,)))
    maps, bases = {**MAPS, **counter_maps(COUNTED)}, {**NAT_CHAINS, **CARRIED_CHAIN}
    lines = [
        *skeleton(family, counters, maps, bases, _CHAINS),
        *tracking(config, family),
        *elements(services, marks, family),
        *counter_elements(every, CARRIED, family),
        *counter_elements(adopted, (answers.ADOPTED,), family),
        *answers.adopting_objects(place, name),
        *answers.adopting_elements(place, ends),
        *add_rules("prerouting", _prerouting(family, adopts=bool(ends)), family),
        *add_rules("answered", _answered(config, family), family),
        *add_rules(UNANSWERED, _unanswered(services, marks, weights, family, seed), family),
        *add_rules(answers.ADOPTING, _adopting(config, family) if ends else (), family),
        *add_rules("postrouting", _postrouting(family, hairpin, adopts=bool(ends)), family),
        *add_rules("forward", _forward(family, adopts=bool(ends)), family),
    ]
    return KernelTable.of(family, lines, services, marks)


def states_text(
    config: Config,
    family: int,
    seed: int,
    weights: Mapping[int, int],
    lost: Collection[int] = (),
) -> str:
    """The nft input that sets each backend's share of the hash in ``unanswered`` by ``weights``, by
    mark, in an existing table; backends without weight get none. Connections of those that are
    ``lost``, by mark, are not adopted.
    """
    services, marks = _services(config, family), backend_marks(config)
    place = f"{NFT_FAMILY[family]} {TABLE}"
    rules = _unanswered(services, marks, weights, family, seed)
    lines = [f"flush chain {place} {UNANSWERED}", *add_rules(UNANSWERED, rules, family)]
    if any(map(answers.may_adopt, services)):
        lines.append(f"flush chain {place} {answers.ADOPTING}")
        lines += add_rules(answers.ADOPTING, _adopting(config, family, lost), family)
    return "".join(f"{line}\n" for line in lines)


def _prerouting(family: int, *, adopts: bool) -> Iterator[str]:
    yield conntrack.refused(NFT_FAMILY[family])
    yield f"meta mark & 0x{MASK:08x} == 0x{BASE:08x} jump answered"
    # Not in the maps: the backend was removed while the packet waited.
    yield f"meta mark & 0x{MASK:08x} == 0x{BASE:08x} counter name {GONE} goto {UNANSWERED}"
    # A worker's own mark: no process reads its queue, or the queue is full.
    yield (
        f"meta mark & 0x{MARK_MASK:08x} == 0x{MARK_BASE:08x}"
        f" counter name {UNANSWERED} goto {UNANSWERED}"
    )
    if adopts:
        yield answers.begins(NFT_FAMILY[family])


def _answered(config: Config, family: int) -> Iterator[str]:
    yield "ct mark set meta mark"
    yield from timed(config, family)
    yield from translation("meta mark")


def _adopting(config: Config, family: int, lost: Collection[int] = ()) -> Iterator[str]:
    exempt, name = exemptions(config, family), NFT_FAMILY[family]
    return answers.adopting(name, config.queue, exempt, timed(config, family), lost)


def _postrouting(family: int, hairpin: tuple[str, ...], *, adopts: bool) -> Iterator[str]:
    first, *others = postrouting(hairpin)
    return iter((first, *((answers.translation(NFT_FAMILY[family]),) if adopts else ()), *others))


def _forward(family: int, *, adopts: bool) -> Iterator[str]:
    yield from (answers.carried() if adopts else carried())
    yield answers.strays(NFT_FAMILY[family])


def _weights(services: list[Service], marks: dict[str, tuple[int, ...]]) -> dict[int, int]:
    """The weights of the file, by mark."""
    return {
        mark: backend.weight
        for service in services
        for mark, backend in zip(marks[service.name], service.backends, strict=True)
    }


def _unanswered(
    services: list[Service],
    marks: dict[str, tuple[int, ...]],
    weights: Mapping[int, int],
    family: int,
    seed: int,
) -> Iterator[str]:
    """Sets the mark by a hash of the client's address and port; backends have shares by weight.

    If no backend has weight, a first packet is not changed, and the host refuses it.
    """
    for service, protocol, match in first_packets(services, family):
        shares = in_order(service, ((mark, weights[mark]) for mark in marks[service.name]))
        if not any(weight for _, weight in shares):
            continue
        fields = f"{NFT_FAMILY[family]} saddr"
        if protocol != "icmp" and service.affinity != "client":
            fields += f" . {protocol} sport"
        mark = by_hash(fields, hash_key(service, seed), shares)
        yield f"{match} meta mark set {mark} goto answered"


def _services(config: Config, family: int) -> list[Service]:
    return [s for s in config.services if s.family == family and s.method.conntracked]
