"""DNS answers as data: SRV records (RFC 2782), addresses, and the backends that follow from them.

Lives here: the answer to one query (``Reply`` of ``Srv`` or addresses), the backends of a name
(``ResolvedBackends`` of ``Record``), ``records_of``, and the errors.
Rules: pure, and without the DNS library, which only ``srv`` imports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, Protocol

from pydantic import Field

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError

#: most targets of one name that are resolved
MOST_TARGETS: Final = 1000
_HEAVIEST: Final = 65535


class NoAnswerError(PlatformError):
    """The query failed, or the answer has no usable backend."""


class NoRecordsError(NoAnswerError):
    """NXDOMAIN, or the name has no records of the type."""


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record; ``target`` is absolute, "." if the service is not available."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The records of a name, ``Srv`` or addresses as text; ``ttl`` is seconds."""

    records: tuple[Any, ...]
    ttl: float


class Query(Protocol):
    """A DNS query."""

    async def __call__(self, name: str, kind: str) -> Reply:
        """The records of ``kind`` (SRV, A, AAAA) at ``name``; raises ``NoAnswerError``."""


class Record(NamedTuple):
    """One backend from DNS."""

    address: IPAddress
    port: Annotated[int, Field(ge=0, le=65535)]
    weight: Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, slots=True)
class ResolvedBackends:
    """The backends in the order of their addresses, and their TTL in seconds."""

    records: tuple[Record, ...]
    ttl: float


def records_of(named: Iterable[Srv], addresses: Mapping[str, Reply]) -> tuple[Record, ...]:
    """The backends of the SRV records ``named``, whose targets have ``addresses``.

    One record for each address and port, with the sum of their weights. Weight 0, which in RFC 2782
    means a very small chance, counts as 1, because a backend of weight 0 gets no new flows here.
    """
    weights: dict[tuple[IPAddress, int], int] = {}
    for record in named:
        for text in addresses[record.target].records:
            key = (ipaddress.ip_address(text), record.port)
            weights[key] = min(weights.get(key, 0) + max(record.weight, 1), _HEAVIEST)
    return tuple(
        Record(address, port, weights[address, port])
        for address, port in sorted(weights, key=lambda key: (int(key[0]), key[1]))
    )
