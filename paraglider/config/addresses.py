"""Fills in the addresses of this host that the file names by their interface (``own_address``).

Lives here: ``own_addresses`` (the places in the file that have one), ``fill_addresses``, whose
result is ``Filled``, and ``given_addresses`` (those that a file has, which it must not).
Rules: pure, the host is an argument. The same host gives the same addresses, whatever was filled
in before; an address that is gone stays as it was. VIPs and the gateway addresses of the file are
never taken: the set-up adds them, and they may move to another host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.messages import unknown_key
from paraglider.config.model import Config
from paraglider.config.own_address import OwnAddress, take_address
from paraglider.config.types import IPInterface

_NEXT_HOP: Final[Path] = ("announce", "next_hop")


@dataclass(frozen=True, slots=True)
class Filled:
    """The configuration with the addresses of this host; ``problems`` are those that it does not
    have, ``notes`` are about a choice of several.
    """

    config: Config
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def own_addresses(config: Config) -> Iterator[tuple[Path, OwnAddress]]:
    """The places in the file where an interface stands for an address."""
    private = config.network.private
    for index, item in enumerate(private.gateway if private is not None else ()):
        if isinstance(item, OwnAddress):
            yield ("network", "private", "gateway", index), item
    for index, service in enumerate(config.services):
        if isinstance(service.snat, OwnAddress):
            yield ("services", index, "snat"), service.snat
    if config.announce is not None and isinstance(config.announce.next_hop, OwnAddress):
        yield _NEXT_HOP, config.announce.next_hop


def given_addresses(config: Config) -> list[Problem]:
    """The errors of a ``config`` that was read from a file with `addresses`."""
    return [
        unknown_key((*path, "addresses"))
        for path, own in own_addresses(config)
        if "addresses" in own.model_fields_set
    ]


def fill_addresses(
    config: Config, families: Iterable[int], host: Mapping[str, Sequence[IPInterface]]
) -> Filled:
    """``config`` with the addresses of this host, of the services of ``families``.

    ``host`` has the addresses of all interfaces that another host can reach, in the order in which
    they were added.
    """
    filling = _Filling(config, host)
    wanted = frozenset(families)
    services = tuple(
        service.model_copy(
            update={
                "snat": filling.fill(
                    ("services", index, "snat"), service.snat, (service.family,), "`snat`"
                )
            }
        )
        if isinstance(service.snat, OwnAddress) and service.family in wanted
        else service
        for index, service in enumerate(config.services)
    )
    network, private = config.network, config.network.private
    if private is not None and private.gateway != private.added:
        present = {service.family for service in config.services} & wanted
        gateways = tuple(
            filling.fill(
                ("network", "private", "gateway", index), item, sorted(present), "`gateway`"
            )
            if isinstance(item, OwnAddress)
            else item
            for index, item in enumerate(private.gateway)
        )
        side = private.model_copy(update={"gateway": gateways})
        network = network.model_copy(update={"private": side})
    announce = config.announce
    if announce is not None and isinstance(announce.next_hop, OwnAddress):
        told = {vip.version for vip in config.announced} & wanted
        hop = filling.fill(_NEXT_HOP, announce.next_hop, sorted(told), "`next_hop`")
        announce = announce.model_copy(update={"next_hop": hop})
    update = {"services": services, "network": network, "announce": announce}
    filled = config.model_copy(update=update)
    return Filled(filled, tuple(filling.problems), tuple(filling.notes))


class _Filling:
    """Fills in addresses of ``host``, and collects the problems."""

    def __init__(self, config: Config, host: Mapping[str, Sequence[IPInterface]]) -> None:
        private = config.network.private
        self._host = host
        self._never = {service.vip.ip for service in config.services}
        self._never |= {gateway.ip for gateway in (private.added if private is not None else ())}
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []

    def fill(self, path: Path, own: OwnAddress, families: Iterable[int], key: str) -> OwnAddress:
        """``own``, at ``path``, with its address of each of ``families``, one at least; if there
        is none, ``own`` as it is.
        """
        place = (*path, "interface")
        name = own.interface
        if own.network is not None:
            families = [family for family in families if family == own.network.version]
        if name not in self._host:
            there = ", ".join(sorted(self._host.keys() - {"lo"})) or "none but lo"
            what = f"{key}: there is no interface `{name}` on this host"
            self.problems.append(Problem(place, what, f"the interfaces here are: {there}"))
            return own
        taken: list[IPInterface] = []
        for family in families:
            usable = [each for each in self._host[name] if each.ip not in self._never]
            found = take_address(own, family, usable)
            taken += found[:1]
            if len(found) > 1:
                each = ", ".join(str(address.ip) for address in found)
                what = f"{key}: {name} has several IPv{family} addresses ({each})"
                what += f", and {found[0].ip} is taken"
                remedy = f"write `network: {found[0].network}` beside `interface`, or another"
                self.notes.append(Problem(place, what, remedy))
        if not taken:
            self.problems.append(self._missing(place, own, families, key))
            return own
        return own.model_copy(update={"addresses": tuple(taken)})

    def _missing(self, place: Path, own: OwnAddress, families: Iterable[int], key: str) -> Problem:
        kind = " or ".join(f"IPv{family}" for family in families) or "such"
        where = f" in {own.network}" if own.network is not None else ""
        what = f"{key}: {own.interface} has no {kind} address{where} of this host's own"
        if any(each.ip in self._never for each in self._host[own.interface]):
            what += ", only VIPs and gateways of this file"
        return Problem(place, what, "give it one, or name another interface")
