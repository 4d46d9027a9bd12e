"""What the DNS says of backends, as data: SRV records (RFC 2782), addresses, and what they come to.

Lives here: the answer to one question (``Reply`` of ``Srv`` or addresses), the backends that follow
from several (``Answer`` of ``Record``), ``records_of``, and the errors where there are none.
Rules: pure, and without the library that asks (``srv``): what only reads answers needs none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, Protocol

from pydantic import Field

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError

#: targets of one name that are followed
MOST_TARGETS: Final = 1000
_HEAVIEST: Final = 65535


class NoAnswerError(PlatformError):
    """The DNS could not be asked, or what it says names no backend."""


class NothingThereError(NoAnswerError):
    """The DNS says that there is no such name, or nothing of that kind at it."""


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record; ``target`` is absolute, "." where the service is not to be had."""

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
    """Asks the DNS."""

    async def __call__(self, name: str, kind: str) -> Reply:
        """The records of ``kind`` (SRV, A, AAAA) at ``name``; raises ``NoAnswerError``."""


class Record(NamedTuple):
    """One backend as the DNS has it."""

    address: IPAddress
    port: Annotated[int, Field(ge=0, le=65535)]
    weight: Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, slots=True)
class Answer:
    """The backends, in the order of their addresses, and for how many seconds they hold."""

    records: tuple[Record, ...]
    ttl: float


def records_of(named: Iterable[Srv], addresses: Mapping[str, Reply]) -> tuple[Record, ...]:
    """What ``named`` comes to where its targets have ``addresses``.

    One record an address and port; weights of the same add up, and 0, which RFC 2782 has for
    "hardly ever", counts as 1: here 0 means never.
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
