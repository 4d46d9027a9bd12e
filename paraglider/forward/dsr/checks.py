"""Checks of ``forward: dsr``: it does not change packets, and reaches only backends on the link.

Lives here: ``check_service``.
Rules: as in ``config.check``. The set-up, which can read the host, checks whether a VIP is an
address of this host, and the networks of interfaces. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Network, Service
from paraglider.config.network import gateways_of
from paraglider.forward.one_sided_checks import check_keys

_NETWORK = {
    "public": "add `network: {public: {interface: …}}`, whose interface answers for the VIP",
    "private": "add `network: {private: {interface: …}}`, by which the backends are reached",
}


def check_service(path: Path, service: Service, network: Network) -> Iterator[Problem]:
    """The errors of ``service`` at ``path``, in a file with ``network``."""
    yield from _network(path, network)
    yield from check_keys(path, service, "packets as they are")
    yield from _links(path, service, network)


def _network(path: Path, network: Network) -> Iterator[Problem]:
    place = (*path, "forward")
    for side, remedy in _NETWORK.items():
        if getattr(network, side) is None:
            what = f"`forward: dsr` without `network: {side}`"
            yield Problem(place, what, remedy, needs=(("network", side),))


def _links(path: Path, service: Service, network: Network) -> Iterator[Problem]:
    """Backends that are in no network of the gateways, if the file has any."""
    networks = [gateway.network for gateway in gateways_of(network, service.family)]
    if network.private is not None and not network.private.complete:
        return  # the set-up knows the network, and checks it
    for index, backend in enumerate(service.backends):
        of_family = backend.address.version == service.family
        if networks and of_family and not any(backend.address in network for network in networks):
            known = ", ".join(map(str, networks))
            what = f"backend {backend.address} is not in {known}, the network of `gateway`"
            remedy = "name a neighbour, add a `gateway` of its network, or use `forward: nat`"
            needs = ((*path, "forward"), ("network", "private"))
            yield Problem((*path, "backends", index, "address"), what, remedy, needs=needs)
