"""Lists and ends flows of a packet path, for `paraglider flows` and `kill`.

Lives here: ``Match``, a filter of flows; ``FlowView``, the listing of a path.
Rules: not part of the packet path. A walk yields once for every flow that it checks, matching or
not, so that it can be done in slices between packets; a million flows delay no packet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
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

    def matches_client(self, address: bytes) -> bool:
        """Whether the client at ``address`` (packed) is selected."""
        network = self.client
        if network is None:
            return True
        if len(address) != network.max_prefixlen // 8:
            return False
        shift = network.max_prefixlen - network.prefixlen
        number = int.from_bytes(address, "big") >> shift
        return number == int(network.network_address) >> shift

    def matches_backend(self, backend: Backend) -> bool:
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
        for _, table in self._datapaths:
            while table.unread is not None:
                yield from repeat(None, table.unread.step())
        meant: dict[Translation, bool] = {}
        every = ((table, flow) for _, table in self._datapaths for flow in table.walk())
        for table, flow in every:
            translation = flow.translation
            if translation not in meant:
                service = self._services.get(translation)
                right = match.service is None or match.service == service
                meant[translation] = right and match.matches_backend(translation.backend)
            if (
                flow.state != GONE
                and meant[translation]
                and match.matches_client(flow.forward_key[: len(translation.vip)])
            ):
                yield table.forward[flow.protocol].get(flow.forward_key)  # a compact one, expanded
            else:
                yield None

    def describe(self, flow: Flow, now: float) -> dict[str, Any]:
        """Describe ``flow`` as data for JSON; the packets of a flow are known if BPF carries it."""
        key, translation = flow.forward_key, flow.translation
        size = len(translation.vip)
        owner = self._owner(flow)
        packets = None
        if owner is not None:
            owner.carrier.refresh(flow)
            packets = owner.carrier.packets(flow)
        packets_in, packets_out = packets or (None, None)
        return {
            "service": self._services.get(translation, ""),
            "protocol": PROTOCOL_NAMES[flow.protocol],
            "client": str(ipaddress.ip_address(key[:size])),
            "client_port": int.from_bytes(key[-4:-2], "big"),
            "vip": str(ipaddress.ip_address(translation.vip)),
            "port": int.from_bytes(key[-2:], "big"),
            "backend": translation.backend.name,
            "state": STATE_NAMES[flow.state],
            "carrier": "worker" if packets is None else "bpf",
            "packets_in": packets_in,
            "packets_out": packets_out,
            "idle": round(max(now - flow.seen, 0.0), 1),
        }

    def forget(self, flow: Flow, now: float) -> bool:
        """End ``flow``; False if it has ended already."""
        owner = self._owner(flow)
        if flow.state == GONE or owner is None:
            return False
        owner.end(flow, now)
        return True

    def _owner(self, flow: Flow) -> Datapath | None:
        """The datapath with ``flow`` in its table; None when the flow has ended."""
        for datapath, table in self._datapaths:
            if table.forward[flow.protocol].get(flow.forward_key) is flow:
                return datapath
        return None
