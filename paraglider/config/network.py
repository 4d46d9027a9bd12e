"""The section `network` of the configuration file.

Lives here: ``Network``, ``PublicSide``, ``PrivateSide``; ``config.model`` gives ``Network`` on.
Rules: as in ``config.model``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paraglider.config.section import Section
from paraglider.config.types import AddressWithPrefix, ExemptEndpoint

# As the kernel's dev_valid_name() (net/core/dev.c), without iptables' special characters "+" and
# "!".
InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$")]


class PublicSide(Section):
    """The side of the clients; `paraglider.config` adds the VIPs to this interface."""

    interface: InterfaceName = Field(description="Interface that faces the clients.")


class PrivateSide(Section):
    """The side of the backends; `paraglider.config` adds the gateway addresses here."""

    interface: InterfaceName = Field(description="Interface that faces the backends.")
    gateway: tuple[AddressWithPrefix, ...] = Field(
        default=(), description="Addresses that the backends use as default gateway.", strict=False
    )


class Network(Section):
    """What `paraglider.config` sets up; without this section it changes no interface."""

    public: PublicSide | None = Field(default=None, description="Side of the clients.")
    private: PrivateSide | None = Field(default=None, description="Side of the backends.")
    exempt: tuple[ExemptEndpoint, ...] = Field(
        default=(), description="Endpoints that are never balanced.", strict=False
    )
