"""Contradictions of ``forward: dsr``, which leaves packets as they are and addresses to others.

Lives here: ``check_dsr``, which ``validate`` calls.
Rules: as in ``validate``. Whether a VIP is an address of this host, and which networks an interface
is in, is asked of the host by the set-up.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.types import IPAddress

_NETWORK = {
    "public": "add `network: {public: {interface: …}}`, whose interface answers for the VIP",
    "private": "add `network: {private: {interface: …}}`, by which the backends are reached",
}


def check_dsr(config: Config) -> list[Problem]:
    """Every contradiction of the kind in ``config``."""
    found: list[Problem] = [*_vips(config)]
    for index, service in enumerate(config.services):
        if service.forward == "dsr":
            path: Path = ("services", index)
            found += [*_network(path, config), *_keys(path, service)]
            found += _links(path, service, config)
    return found


def _network(path: Path, config: Config) -> Iterator[Problem]:
    place = (*path, "forward")
    for side, remedy in _NETWORK.items():
        if getattr(config.network, side) is None:
            what = f"`forward: dsr` without `network: {side}`"
            yield Problem(place, what, remedy, needs=(("network", side),))


def _keys(path: Path, service: Service) -> Iterator[Problem]:
    needs: tuple[Path, ...] = ((*path, "forward"),)
    if "return_" in service.model_fields_set and service.return_ == "via":
        what = "`return: via` with `forward: dsr`, where the backends answer the clients"
        remedy = "leave `return` out, or use `forward: nat`"
        yield Problem((*path, "return"), what, remedy, needs=needs)
    for index, backend in enumerate(service.backends):
        # The backend of a packet sent on unchanged sees the port of the client's packet.
        if backend.port is not None and backend.port != service.single_port:
            what = "`port` with `forward: dsr`, which leaves packets as they are"
            remedy = "leave `port` out, or use `forward: nat`"
            place = (*path, "backends", index, "port")
            yield Problem(place, what, remedy, at="key", needs=(*needs, (*path, "ports")))


def _links(path: Path, service: Service, config: Config) -> Iterator[Problem]:
    """Backends that are in no network of the gateways, where the file gives any."""
    private = config.network.private
    gateways = private.gateway if private is not None else ()
    networks = [gateway.network for gateway in gateways if gateway.version == service.family]
    for index, backend in enumerate(service.backends):
        of_family = backend.address.version == service.family
        if networks and of_family and not any(backend.address in network for network in networks):
            known = ", ".join(map(str, networks))
            what = f"backend {backend.address} is not in {known}, the network of `gateway`"
            remedy = "name a neighbour, add a `gateway` of its network, or use `forward: nat`"
            needs = ((*path, "forward"), ("network", "private"))
            yield Problem((*path, "backends", index, "address"), what, remedy, needs=needs)


def _vips(config: Config) -> Iterator[Problem]:
    """VIPs that are to be this host's for one service and must not be for another."""
    owned: dict[IPAddress, int] = {}
    for index, service in enumerate(config.services):
        if service.forward != "dsr":
            owned.setdefault(service.vip.ip, index)
    for index, service in enumerate(config.services):
        other = owned.get(service.vip.ip)
        if service.forward == "dsr" and other is not None:
            rival = config.services[other]
            what = f"VIP {service.vip.ip} is also `{rival.name}`'s, by `forward: {rival.forward}`"
            remedy = "give the dsr services a VIP of their own, which is no address of this host"
            needs = tuple(
                ("services", i, key) for i in (index, other) for key in ("forward", "vip")
            )
            yield Problem(("services", index, "vip"), what, remedy, needs=needs)
