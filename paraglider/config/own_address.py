"""Addresses of this host that the file names by their interface: one file serves all hosts.

Lives here: ``OwnAddress`` (`{interface: eth1}`), ``AddressOrOwn`` and ``GatewayOrOwn``, the types
of `snat` and of an item of `gateway`, and ``take_address``, which selects one of an interface.
Rules: the file names the interface; ``config.addresses`` fills ``addresses`` in from the host, and
refuses them in a file. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.json_schema import SkipJsonSchema

from paraglider.config.section import Section
from paraglider.config.types import (
    Address,
    AddressWithPrefix,
    InterfaceName,
    IPAddress,
    IPInterface,
    NetworkPrefix,
    parse_address,
    parse_interface,
)

_T = TypeVar("_T")


class OwnAddress(Section):
    """This host's own address on an interface."""

    interface: InterfaceName = Field(description="Interface of this host that has the address.")
    network: NetworkPrefix | None = Field(
        default=None, description="The address in this network, if the interface has several."
    )
    addresses: SkipJsonSchema[tuple[AddressWithPrefix, ...]] = Field(
        default=(), description="Found on the host, one a family.", strict=False
    )

    def of_family(self, family: int) -> IPInterface | None:
        """The address of ``family`` (4 or 6); None if it is not known, or there is none."""
        return next((found for found in self.addresses if found.version == family), None)

    def __str__(self) -> str:
        where = f"address on {self.interface}"
        where += f" in {self.network}" if self.network is not None else ""
        return ", ".join(f"{found.ip} ({self.interface})" for found in self.addresses) or where


def _address_or_own(value: Any, _handler: ValidatorFunctionWrapHandler) -> IPAddress | OwnAddress:
    """Validates each form by itself, so that an error is about the form that was used."""
    if isinstance(value, dict):
        return OwnAddress.model_validate(value)
    return value if isinstance(value, OwnAddress) else _parsed(value, parse_address)


def _gateway_or_own(value: Any, _handler: ValidatorFunctionWrapHandler) -> IPInterface | OwnAddress:
    """As ``_address_or_own``."""
    if isinstance(value, dict):
        return OwnAddress.model_validate(value)
    return value if isinstance(value, OwnAddress) else _parsed(value, parse_interface)


def _parsed(value: Any, parse: Callable[[Any], _T]) -> _T:
    """``value`` by ``parse``; the error about what may be a name of an interface says how to write
    that.
    """
    try:
        return parse(value)
    except ValueError as error:
        if not isinstance(value, str) or re.fullmatch(r"[A-Za-z][\w.-]{0,14}", value) is None:
            raise
        what = str(error).partition("; ")[0]
        raise ValueError(
            f"{what}; for this host's address there write {{interface: {value}}}"
        ) from None


def _plain(value: IPAddress | IPInterface | OwnAddress) -> Any:
    return value.model_dump(mode="json") if isinstance(value, OwnAddress) else str(value)


AddressOrOwn = Annotated[
    Address | OwnAddress, WrapValidator(_address_or_own), PlainSerializer(_plain)
]
GatewayOrOwn = Annotated[
    AddressWithPrefix | OwnAddress, WrapValidator(_gateway_or_own), PlainSerializer(_plain)
]


def take_address(
    own: OwnAddress, family: int, present: Sequence[IPInterface]
) -> tuple[IPInterface, ...]:
    """The addresses of ``family`` that ``own`` may mean, the one to take first, of those that the
    interface has, in the order in which they were added (``present``).

    One with the prefix of a single host (/32, /128), as VRRP adds them, is taken only if there is
    no other.
    """
    found = [
        address
        for address in present
        if address.version == family
        and (own.network is None or (own.network.version == family and address.ip in own.network))
    ]
    wide = tuple(each for each in found if each.network.prefixlen < each.max_prefixlen)
    return wide or tuple(found)
