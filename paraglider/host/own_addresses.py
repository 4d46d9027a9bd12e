"""The addresses of this host that a configuration names by their interface.

Lives here: ``with_own_addresses``, for a file that was read, with its ``MissingAddressError``, and
``host_addresses``.
Rules: reads the host by netlink, and only if the file names an interface so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from paraglider.config.addresses import fill_addresses, own_addresses
from paraglider.config.diagnostics import ConfigError, PlacedProblem
from paraglider.config.types import IPInterface
from paraglider.errors import PlatformError
from paraglider.forward.load import LoadedConfig
from paraglider.host.netlink import Netlink


class MissingAddressError(ConfigError):
    """This host lacks addresses that the file names by their interface. They may come, as after a
    boot, so systemd is to try again.
    """

    exit_code = PlatformError.exit_code


def host_addresses() -> Mapping[str, tuple[IPInterface, ...]]:
    """The addresses of all interfaces of this host; see ``Netlink.own_addresses``."""
    return Netlink().own_addresses()


def with_own_addresses(
    loaded: LoadedConfig, families: Iterable[int]
) -> tuple[LoadedConfig, list[PlacedProblem]]:
    """``loaded`` with the addresses of this host, for the services of ``families``; and notes about
    a choice of several, with their places in the file.

    Raises ``MissingAddressError`` with every address that this host does not have.
    """
    if not any(own_addresses(loaded.config)):
        return loaded, []
    filled = fill_addresses(loaded.config, families, host_addresses())
    if filled.problems:
        raise MissingAddressError(loaded.findings(filled.problems))
    return replace(loaded, config=filled.config), loaded.findings(filled.notes)
