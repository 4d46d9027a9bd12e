"""Checks of what two services with different methods cannot share: a port of a backend, a VIP.

Lives here: ``check_shared``, which ``check`` calls with the whole configuration.
Rules: as in ``check``. Compares ports at the backend, mapped or not. Uses properties of the
methods, not their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.types import ALL_PORTS, IPAddress, PortRange


@dataclass(frozen=True, slots=True)
class _Claim:
    """Ports of one backend that are the source of a service's answers.

    ``vip`` is the source address that the backend sets with ``return: direct``, with the port if it
    differs; None with ``return: via``.
    """

    service: int
    backend: int
    ports: PortRange
    vip: tuple[IPAddress, int | None] | None = None


_Claims = dict[tuple[IPAddress, str], list[_Claim]]
"""By the backend's address and the transport protocol."""


def check_shared(config: Config) -> list[Problem]:
    """Every backend and VIP of ``config`` that two services cannot share."""
    return [*_conntrack(config), *_direct(config), *_adopting(config), *_vips(config)]


def _conntrack(config: Config) -> Iterator[Problem]:
    """Answers to a worker's flows bypass conntrack, which other methods need."""
    awaited = _claims(config, lambda s: s.method.answers_pass(s) and not s.method.conntracked)
    tracked = _claims(config, lambda s: s.method.conntracked)
    remedy = "use the same `forward` for both, or another port or backend for one"
    for claim, other in _clashes(tracked, awaited):
        rival = config.services[other.service]
        what = f"serves `{rival.name}` by `forward: {rival.forward}`"
        yield _problem(config, claim, other, what, remedy)


def _direct(config: Config) -> Iterator[Problem]:
    """The backend sets one source address for all answers from one of its ports."""
    # With `snat` answers go to the balancer; where the balancer connects by itself too, and where
    # the backend has the VIP its answers have that source anyway.
    direct = _claims(config, lambda s: _is_rewritten(s) and s.answers == "direct")
    others = _claims(config, lambda s: _is_rewritten(s) and s.snat is None)
    remedy = "use another port or backend for one of the two"
    for claim, other in _clashes(others, direct):
        named = config.services[other.service].name
        what = f"answers as the VIP of `{named}` (`return: direct`)"
        yield _problem(config, claim, other, what, remedy)


def _adopting(config: Config) -> Iterator[Problem]:
    """See ``ambiguous_answers``: an error for a service whose file asks for adoption."""
    return ambiguous_answers(config, lambda service: "adopt" in service.model_fields_set)


def ambiguous_answers(config: Config, chosen: Callable[[Service], bool]) -> Iterator[Problem]:
    """Backends' ports that answer for another service too, of the ``chosen`` services that adopt
    flows: an answer in mid-stream does not tell whose it is.
    """

    def answers_here(service: Service) -> bool:
        # With `snat` answers go to the balancer itself.
        return _is_rewritten(service) and service.answers == "via" and service.snat is None

    def adopts_answers(service: Service) -> bool:
        # Those of all ports may be the backend's own connections, and adopt nothing by themselves.
        hashes = service.adopts and service.strategy_class.hashes
        return hashes and answers_here(service) and not service.all_ports and chosen(service)

    remedy = "write `adopt: never`, or use another port or backend for one of the two"
    for claim, other in _clashes(_claims(config, adopts_answers), _claims(config, answers_here)):
        mine, theirs = config.services[claim.service], config.services[other.service]
        if theirs.all_ports and theirs.vip.ip == mine.vip.ip:
            continue  # packets to these ports are not its
        named = theirs.name
        what = f"answers for `{named}` too, so an answer does not tell whose flow to adopt"
        yield _problem(config, claim, other, what, remedy)


def _is_rewritten(service: Service) -> bool:
    """Whether the packets of ``service`` get the backend's address here."""
    return service.method.queued and service.method.owns_vip


def _vips(config: Config) -> Iterator[Problem]:
    """VIPs that must be addresses of this host for one service, and must not be for another; and
    those that only backends have, of two methods.
    """
    owned: dict[IPAddress, int] = {}
    for index, service in enumerate(config.services):
        if service.method.owns_vip:
            owned.setdefault(service.vip.ip, index)
    first: dict[IPAddress, int] = {}
    for index, service in enumerate(config.services):
        other = owned.get(service.vip.ip)
        if other is None and not service.method.owns_vip:
            other = first.setdefault(service.vip.ip, index)
            if config.services[other].method is service.method:
                continue
        if not service.method.owns_vip and other is not None:
            rival, forward = config.services[other], service.forward
            what = f"VIP {service.vip.ip} is also `{rival.name}`'s, by `forward: {rival.forward}`"
            remedy = (
                f"give the {forward} services a VIP of their own, which is no address of this host"
            )
            needs = tuple(
                ("services", i, key) for i in (index, other) for key in ("forward", "vip")
            )
            yield Problem(("services", index, "vip"), what, remedy, needs=needs)


def _claims(config: Config, chosen: Callable[[Service], bool]) -> _Claims:
    found: _Claims = {}
    for index, service in enumerate(config.services):
        for number, backend in enumerate(service.backends) if chosen(service) else ():
            vip = None
            if service.return_ == "direct":
                mapped = backend.port not in (None, service.single_port)
                vip = service.vip.ip, service.single_port if mapped else None
            for protocol in service.protocols:
                claims = found.setdefault((backend.address, protocol), [])
                ports = service.reply_ports(backend)
                claims.extend(_Claim(index, number, span, vip) for span in ports)
    return found


def _clashes(claims: _Claims, others: _Claims) -> Iterator[tuple[_Claim, _Claim]]:
    """Each backend's first claim on ports that another service has with another VIP."""
    told: set[tuple[int, int]] = set()
    for key, mine in claims.items():
        theirs = others.get(key, [])
        for claim in mine:
            place = claim.service, claim.backend
            # Of two equal claims the later one is reported.
            rivals = (
                other
                for other in theirs
                if claim.ports.overlaps(other.ports)
                and claim.service != other.service
                and (claim.vip is None or claim.vip != other.vip)
                and (claim.vip is None or claim.service > other.service)
            )
            if place not in told and (rival := next(rivals, None)) is not None:
                told.add(place)
                yield claim, rival


def _problem(config: Config, claim: _Claim, other: _Claim, what: str, remedy: str) -> Problem:
    path: Path = ("services", claim.service, "backends", claim.backend, "address")
    where = "on all ports" if claim.ports == ALL_PORTS else f"port {claim.ports}"
    address = config.services[claim.service].backends[claim.backend].address
    keys = ("forward", "return", "vip", "protocol", "ports", "backends")
    needs = tuple(("services", i, key) for i in (claim.service, other.service) for key in keys)
    return Problem(path, f"backend {address} {where} {what}", remedy, needs=needs)
