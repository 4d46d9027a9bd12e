"""Reports the addresses of this host that the file names by their interface.

The supervisor compares them with its configuration (``inputs.own_addresses``); to list thousands of
addresses takes milliseconds.

Lives here: ``AddressReporter``.
Rules: level-triggered: each call reads all, and reports it if it differs from the last report. What
the kernel refuses is read again by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from paraglider.config.addresses import own_addresses
from paraglider.config.model import Config
from paraglider.config.types import IPInterface
from paraglider.daemon.messages import HostAddresses, Message
from paraglider.errors import PlatformError
from paraglider.host.own_addresses import host_addresses


class AddressReporter:
    """Reports by ``notify`` the addresses that ``config`` names; ``host`` reads those of all
    interfaces.
    """

    def __init__(
        self,
        config: Config,
        notify: Callable[[Message], object],
        host: Callable[[], Mapping[str, Sequence[IPInterface]]] = host_addresses,
    ) -> None:
        self._notify = notify
        self._host = host
        self._reported: HostAddresses | None = None
        self.apply_config(config)

    def apply_config(self, config: Config) -> None:
        """Report the addresses that ``config`` names from now on."""
        self._named = {own.interface for _, own in own_addresses(config)}

    def refresh(self) -> None:
        """Read the host, if the configuration names an interface, and report a change."""
        if not self._named:
            return
        try:
            found = self._host()
        except (PlatformError, OSError):
            return
        addresses = {name: tuple(found[name]) for name in sorted(self._named & found.keys())}
        report = HostAddresses(interfaces=tuple(sorted(found)), addresses=addresses)
        if report != self._reported:
            self._notify(report)
            self._reported = report
