"""The section `network` of the configuration file.

Lives here: ``Network``, ``PublicSide``, ``PrivateSide``; ``config.model`` gives ``Network`` on.
Rules: as in ``config.model``.
"""

from __future__ import annotations

from pydantic import Field

from paraglider.config.own_address import GatewayOrOwn, OwnAddress
from paraglider.config.section import Section
from paraglider.config.types import ExemptEndpoint, InterfaceName, IPInterface


class PublicSide(Section):
    """The side of the clients; `paraglider.config` adds the VIPs to this interface."""

    interface: InterfaceName = Field(description="Interface that faces the clients.")


class PrivateSide(Section):
    """The side of the backends; `paraglider.config` adds the gateway addresses here."""

    interface: InterfaceName = Field(description="Interface that faces the backends.")
    gateway: tuple[GatewayOrOwn, ...] = Field(
        default=(),
        description="Addresses that the backends use as default gateway; of an interface of this"
        " host: its own address there.",
        strict=False,
    )

    @property
    def gateways(self) -> tuple[IPInterface, ...]:
        """The addresses of `gateway`; of interfaces those that are known."""
        return tuple(
            address
            for item in self.gateway
            for address in (item.addresses if isinstance(item, OwnAddress) else (item,))
        )

    @property
    def added(self) -> tuple[IPInterface, ...]:
        """The addresses of `gateway` that the set-up adds: those that the file has."""
        return tuple(item for item in self.gateway if not isinstance(item, OwnAddress))

    @property
    def complete(self) -> bool:
        """Whether all of ``gateways`` are known."""
        return all(not isinstance(item, OwnAddress) or item.addresses for item in self.gateway)


def gateways_of(network: Network, family: int) -> list[IPInterface]:
    """The gateway addresses of ``family`` (4 or 6) in ``network``."""
    every = network.private.gateways if network.private is not None else ()
    return [gateway for gateway in every if gateway.version == family]


class Network(Section):
    """What `paraglider.config` sets up; without this section it changes no interface."""

    public: PublicSide | None = Field(default=None, description="Side of the clients.")
    private: PrivateSide | None = Field(default=None, description="Side of the backends.")
    exempt: tuple[ExemptEndpoint, ...] = Field(
        default=(), description="Endpoints that are never balanced.", strict=False
    )
