"""Lists and ends flows of a packet path, for `paraglider flows` and `kill`.

Lives here: ``Match``, which flows are meant; ``FlowView``, the path's side of it.
Rules: nothing here is on the way of a packet. A walk gives something for every flow that it looks
at, so that it can be done in slices; a million flows hold no packet up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from paraglider.core.flow import PROTOCOL_NAMES, Flow
from paraglider.core.flow_states import GONE, STATE_NAMES
from paraglider.core.pool import Backend
from paraglider.core.translation import Translation
from paraglider.errors import OperatorError
from paraglider.forward.datapath import Datapath

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
FIELDS = ("client", "backend", "service")


@dataclass(frozen=True, slots=True)
class Match:
    """Selects flows: of clients in a network, to a backend, of a service; None for any."""

    client: IPNetwork | None = None
    backend: str | None = None
    service: str | None = None

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Match:
        """Parse a mapping of field to text; raises ``OperatorError``."""
        given = {name: words[name] for name in FIELDS if words.get(name) is not None}
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                raise OperatorError(f"`{name}` is no text", "write an address or a name")
        client = None
        if "client" in given:
            try:
                client = ipaddress.ip_network(given["client"], strict=False)
            except ValueError:
                raise OperatorError(
                    f"client {given['client']!r} is no address and no network",
                    "write one such as 192.0.2.1 or 192.0.2.0/24",
                ) from None
        return cls(client, given.get("backend"), given.get("service"))

    def words(self) -> dict[str, str]:
        """The mapping that ``of`` reads."""
        client = None if self.client is None else str(self.client)
        found = {"client": client, "backend": self.backend, "service": self.service}
        return {name: value for name, value in found.items() if value is not None}

    def takes_client(self, address: bytes) -> bool:
        """Whether the client at ``address`` (packed) is selected."""
        network = self.client
        if network is None:
            return True
        if len(address) != network.max_prefixlen // 8:
            return False
        shift = network.max_prefixlen - network.prefixlen
        number = int.from_bytes(address, "big") >> shift
        return number == int(network.network_address) >> shift

    def takes_backend(self, backend: Backend) -> bool:
        """Whether ``backend`` is selected, by its name or its address."""
        wanted = self.backend
        if wanted is None or wanted == backend.name:
            return True
        return wanted == str(ipaddress.ip_address(backend.address))


class FlowView:
    """The flows in the tables of ``datapaths``; ``services`` has the name of the service of each
    translation.
    """

    def __init__(self, datapaths: Iterable[Datapath], services: Mapping[Translation, str]) -> None:
        self._datapaths = [(each, each.flows) for each in datapaths if each.flows is not None]
        self._services = services

    def walk(self, match: Match) -> Iterator[Flow | None]:
        """Yields each flow that ``match`` selects, and None for each other one, so that the caller
        can stop between any two; a flow may come twice.
        """
        meant: dict[Translation, bool] = {}
        for flow in chain.from_iterable(table.walk() for _, table in self._datapaths):
            translation = flow.translation
            if translation not in meant:
                service = self._services.get(translation)
                right = match.service is None or match.service == service
                meant[translation] = right and match.takes_backend(translation.backend)
            if (
                flow.state != GONE
                and meant[translation]
                and match.takes_client(flow.forward_key[: len(translation.vip)])
            ):
                yield flow
            else:
                yield None

    def describe(self, flow: Flow, now: float) -> dict[str, Any]:
        """Describe ``flow`` as data for JSON."""
        key, translation = flow.forward_key, flow.translation
        size = len(translation.vip)
        return {
            "service": self._services.get(translation, ""),
            "protocol": PROTOCOL_NAMES[flow.protocol],
            "client": str(ipaddress.ip_address(key[:size])),
            "client_port": int.from_bytes(key[-4:-2], "big"),
            "vip": str(ipaddress.ip_address(translation.vip)),
            "port": int.from_bytes(key[-2:], "big"),
            "backend": translation.backend.name,
            "state": STATE_NAMES[flow.state],
            "idle": round(max(now - flow.seen, 0.0), 1),
        }

    def forget(self, flow: Flow, now: float) -> bool:
        """End ``flow``; False if it has ended already."""
        for datapath, table in self._datapaths:
            if flow.state != GONE and table.forward[flow.protocol].get(flow.forward_key) is flow:
                datapath.end(flow, now)
                return True
        return False
