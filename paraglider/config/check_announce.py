"""Checks of the section `announce`: errors, and warnings about what has no effect.

Lives here: ``check_announce``, which ``check`` calls, and ``announce_warnings``, which ``advice``
calls.
Rules: as in ``check``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paraglider.config.announce import AnnounceConfig, BirdConfig, protocol_of
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.own_address import OwnAddress
from paraglider.config.types import IPAddress

_PLACE: Final[Path] = ("announce",)
_SERVICES: Final[Path] = ("services",)


def check_announce(config: Config) -> Iterator[Problem]:
    """Every error of `announce`, and of services that several balancers cannot have."""
    if config.announce is None:
        return
    yield from _vips(config, config.announce)
    yield from _next_hop(config.announce, config.announced)
    yield from _program(config.announce)
    if config.announce.bird is not None:
        yield from _bird(config.announce, config.announce.bird, config.announced)
    for index, service in enumerate(config.services):
        if service.vip.ip in config.announced:
            yield from _answers((*_SERVICES, index), service)


def announce_warnings(config: Config) -> Iterator[Problem]:
    """Warnings about a valid section."""
    told = config.announce
    if told is None:
        return
    for index, service in enumerate(config.services):
        if service.vip.ip in config.announced:
            yield from _tracked((*_SERVICES, index), service)
    if told.prepend and "prefer_not" not in (told.ill, told.gone):
        what = "`prepend` has no effect with `ill: withdraw`: no VIP is announced as not preferred"
        yield Problem((*_PLACE, "prepend"), what, "leave one of the two out", at="key")
    for key, name in told.bird.protocols.items() if told.bird is not None else ():
        held = [vip for vip in config.announced if vip.version == key]
        alone = [vip for vip in held if told.bird is None or vip not in told.bird.protocols]
        if len(alone) > 1:
            what = f"`{name}` has the routes of {len(alone)} VIPs, and is enabled while one of"
            what += " them is well: an ill one among them stays announced"
            remedy = f"give each VIP a protocol of its own, such as {{{alone[0]}: web{key}}}"
            yield Problem((*_PLACE, "bird", "protocols", str(key)), what, remedy)


def _vips(config: Config, told: AnnounceConfig) -> Iterator[Problem]:
    existing = {service.vip.ip for service in config.services}
    place: Path = (*_PLACE, "vips")
    for vip in told.vips if isinstance(told.vips, tuple) else ():
        if vip not in existing:
            there = ", ".join(map(str, sorted(existing, key=str)))
            what = f"`vips`: no service has the VIP {vip}"
            yield Problem(place, what, f"there are: {there}", needs=(_SERVICES,))
        elif vip.is_loopback:
            what = f"`vips`: {vip} is a loopback address, to which no router sends"
            yield Problem(place, what, "leave it out")
    if not config.announced and not isinstance(told.vips, tuple):
        what = "no VIP is announced: none is a /32 or /128"
        if told.vips == "all":
            what = "no VIP is announced: all are loopback addresses"
        remedy = "write `vips: all`, or list those to announce"
        yield Problem(_PLACE, what, remedy, at="key", needs=(_SERVICES,))


def _next_hop(told: AnnounceConfig, vips: tuple[IPAddress, ...]) -> Iterator[Problem]:
    place, hop = (*_PLACE, "next_hop"), told.next_hop
    families = {neighbor.version for neighbor in told.neighbors}
    for index, neighbor in enumerate(told.neighbors):
        if neighbor in told.neighbors[:index]:
            what = f"neighbor {neighbor} is listed twice"
            yield Problem((*_PLACE, "neighbors"), what, "keep one of the two")
    for family in sorted({vip.version for vip in vips}):
        vip = next(vip for vip in vips if vip.version == family)
        needs = ((*_PLACE, "neighbors"), (*_PLACE, "vips"), _SERVICES)
        if hop == "self":
            # ExaBGP takes its own address of the session, or for IPv4 its router id.
            if family == 6 and families == {4}:
                what = f"`next_hop: self` of the VIP {vip}, and no neighbor is IPv6: ExaBGP has no"
                what += " IPv6 address of its own there"
                remedy = "write `next_hop: {interface: eth0}`, or add an IPv6 neighbor"
                yield Problem(place, what, remedy, needs=needs)
            continue
        if isinstance(hop, OwnAddress):
            there = hop.network.version if hop.network is not None else family
        else:
            there = hop.version
        if there != family:
            what = f"`next_hop` is IPv{there}, the VIP {vip} is IPv{family}"
            remedy = "write `next_hop: self`, or an interface of this host, {interface: eth0}"
            yield Problem(place, what, remedy, needs=needs)


def _program(told: AnnounceConfig) -> Iterator[Problem]:
    for way, given, example in (
        ("bird", told.bird is not None, "bird: {protocols: {4: paraglider4, 6: paraglider6}}"),
        ("exec", bool(told.exec), "exec: [/etc/paraglider/announce]"),
    ):
        if told.via == way and not given:
            what = f"`via: {way}` without `{way}`"
            needs = ((*_PLACE, way),)
            yield Problem((*_PLACE, "via"), what, f"add {example}, or use another", needs=needs)
    if told.exec and not told.exec[0].startswith("/"):
        what = f"`exec`: {told.exec[0]!r} is no absolute path"
        yield Problem((*_PLACE, "exec"), what, "write it in full, from /")


def _bird(told: AnnounceConfig, bird: BirdConfig, vips: tuple[IPAddress, ...]) -> Iterator[Problem]:
    needs = ((*_PLACE, "vips"), _SERVICES)
    place: Path = (*_PLACE, "bird", "protocols")
    other: Path = (*_PLACE, "bird", "worse")
    used: dict[str, str] = {}
    for where, names in ((place, bird.protocols), (other, bird.worse)):
        for key, name in names.items():
            if not isinstance(key, int) and key not in vips:
                what = f"`{where[-1]}`: {key} is no VIP that is announced"
                there = ", ".join(map(str, vips)) or "none"
                yield Problem((*where, str(key)), what, f"those are: {there}", needs=needs)
            first = used.setdefault(name, f"{where[-1]}, {key}")
            if first != f"{where[-1]}, {key}":
                what = f"protocol `{name}` is used twice (first for {first})"
                remedy = "give each its own, since they are enabled at different times"
                yield Problem((*where, str(key)), what, remedy, needs=(place, other))
    lacking = [vip for vip in vips if protocol_of(bird.protocols, vip) is None]
    if lacking:
        what = f"`protocols` has none for the VIP {lacking[0]}"
        remedy = f"add {lacking[0].version}: NAME or {lacking[0]}: NAME"
        yield Problem(place, what, remedy, at="key", needs=needs)
    worse = [vip for vip in vips if protocol_of(bird.worse, vip) is None]
    if worse and "prefer_not" in (told.ill, told.gone):
        asking = "ill" if told.ill == "prefer_not" else "gone"
        what = f"`{asking}: prefer_not`, and `bird.worse` has no protocol for the VIP {worse[0]}"
        remedy = f"add `worse: {{{worse[0].version}: NAME}}`, or write `{asking}: withdraw`"
        more = (other, (*_PLACE, "ill"), (*_PLACE, "gone"))
        yield Problem((*_PLACE, "bird"), what, remedy, at="key", needs=(*needs, *more))


def _to_one(service: Service) -> bool:
    """Whether the answers go to one balancer, and the file does not say that they are to."""
    meant = "return_" in service.model_fields_set or service.snat is not None
    return service.method.answers_pass(service) and not meant


def _tracked(path: Path, service: Service) -> Iterator[Problem]:
    """A warning, since conntrackd can tell all balancers of the connections of each."""
    if _to_one(service) and service.method.conntracked:
        what = f"`{service.name}` is announced, so that several balancers get its packets, but the"
        what += " answers go to the backends' gateway: others' connections fail, unless conntrackd"
        what += " tells all balancers of them"
        remedy = "write `snat: {interface: eth1}`, or use `forward: dsr`; for a pair of which one"
        remedy += " is active, or with conntrackd, write `return: via`"
        yield Problem((*path, "forward"), what, remedy)


def _answers(path: Path, service: Service) -> Iterator[Problem]:
    """Answers that go to one balancer, while packets of clients come to several."""
    if _to_one(service) and not service.method.conntracked:
        what = f"`{service.name}` is announced, so that several balancers get its packets, but the"
        what += " answers go to the backends' gateway, which is one of them"
        remedy = "write `return: direct`, or use `forward: dsr`; for a pair of which one is active"
        remedy += ", or backends that answer by the balancer, write `return: via`"
        keys = ("forward", "return", "snat", "vip")
        needs = tuple((*path, key) for key in keys)
        yield Problem(path, what, remedy, needs=(*needs, (*_PLACE, "vips")))
